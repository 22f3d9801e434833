"""`walden sql` and `walden query`: the history at a terminal.

Invariant: what is refused ends with exit code 2 and one sentence, and nothing of it has run.
"""

import click

from bin.outcome import USAGE, fail, settings, told


@click.command("sql", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-c SQL] [PSQL ARGUMENT...]")
def history_sql(arguments: tuple[str, ...]) -> None:
    """Open psql on the history, as the role that may read it and nothing else: walden sql -c 'select * from rooms limit 5'.

    What there is to ask is in docs/history.md, and what people mostly ask in docs/cookbook.md.
    """
    from bin.querying import psql_dsn
    from bin.running import become_psql

    with told():
        become_psql(psql_dsn(settings().dsn("history")), arguments)


@click.command()
@click.argument("statement")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="How the rows are printed.",
)
@click.option(
    "--limit", "rows", type=click.IntRange(1, 1_000_000), default=1_000, show_default=True, help="Rows at most."
)
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(0, 3_600, min_open=True),
    default=30,
    show_default=True,
    help="Seconds that it may take.",
)
def query(statement: str, form: str, rows: int, seconds: float) -> None:
    """Run one read-only query on the history and print its rows: walden query 'select * from history.rooms'.

    Lets through a select on the schema history with functions of a list, and nothing else: what is refused exits with 2 and
    says why. Where the history does not know an answer it says "unknown" and exits with 1.
    """
    from bin.query_guard import QueryRefused
    from bin.querying import FORMATS, QueryFailed, ask

    with told():
        try:
            answer = ask(settings().dsn("history"), statement, rows=rows, seconds=seconds)
        except QueryRefused as error:
            fail(error, USAGE)
        except QueryFailed as error:
            fail(error)
    click.echo(FORMATS[form](answer), nl=False)
    if answer.more:
        click.echo(f"walden: there are more than {rows} rows: --limit gives more", err=True)
