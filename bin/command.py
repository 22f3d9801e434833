"""The `walden` command.

Invariant: modules that only some subcommands need are imported by these, so that each starts quickly and small.
"""

import functools
import os
import sys
from pathlib import Path

import click

from bin.erasing import erase, purge, retention
from bin.history_commands import history_sql, query
from bin.media import media
from bin.outcome import ABSENT, CONFIGURATION, USAGE, fail, settings, told
from bin.quarantine import quarantine
from bin.registration_tokens import registration_token
from bin.users import user
from eventlog.configuration import ConfigurationError

EXIT_CODES = """\b
Exit codes:
  0  done
  1  it failed, or doctor found an error; the message says why
  2  the command line is wrong
  3  walden.toml or the environment is wrong
  4  the database, or what should be running, is not there
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EXIT_CODES)
@click.version_option(package_name="walden-homeserver", prog_name="walden")
def main() -> None:
    """A Matrix homeserver that lives in Postgres' write-ahead log.

    Settings come from walden.toml (WALDEN_CONFIG names another file) and from WALDEN_... environment variables;
    `walden config reference` lists them. `walden up` is all that a first try needs.
    """


@main.command()
def init() -> None:
    """Write walden.toml and the signing key if there are none, and make the database ready.

    Without database.dsn the embedded PostgreSQL is made and started for the time it takes. With one, the login needs to
    be a superuser, or on PostgreSQL 16 and newer one with CREATEROLE and REPLICATION that may create schemas; with less,
    the SQL for an administrator is printed. Can be run at any time; what is there stays as it is.
    """
    from bin.configuration_file import ensure_configuration
    from bin.initialise import initialise_waiting, make_ready
    from bin.running import database_running

    with told():
        found, written = ensure_configuration(os.environ)
        if written:
            click.echo(f"wrote {found.path} for the server {found.server.name}")
        make_ready(found)
        with database_running(found):
            initialise_waiting(found, click.echo)
        click.echo(f"{found.server.name} is ready: start it with `walden up`")


@main.command()
def up() -> None:
    """Do what init does, then run everything here until Ctrl-C.

    Prints one line with the base URL once the server answers. Logs are in DATA_DIR/logs, one per component. Run again, it
    carries on with the data, also after a crash of everything. One `walden up` per data directory; installations with
    different data directories and ports run side by side.
    """
    from bin.configuration_file import ensure_configuration
    from bin.starting import say
    from bin.starting import up as start

    with told():
        found, written = ensure_configuration(os.environ)
        for warning in found.warnings:
            say(warning)
        if written:
            say(f"wrote {found.path}; the server's name is {found.server.name} and can never change")
        start(found, os.environ | {"WALDEN_CONFIG": str(found.path), "WALDEN_DATA_DIR": str(found.server.data_dir)})


@main.command()
@click.option("--pre", "phase", flag_value="pre", help="Only what is due before new code starts.")
@click.option("--post", "phase", flag_value="post", help="Only what is due once no old code runs.")
def migrate(phase: str | None) -> None:
    """Apply the migrations that the database does not have, on a server that may be at work. Prints their names.

    To upgrade without a pause: `--pre` with the new code while the old runs, then restart the processes on the new code one by
    one, then `--post`.
    """
    import asyncio

    from eventlog.migrations import migrate as apply

    with told():
        wait = functools.partial(click.echo, err=True)
        for name in asyncio.run(apply(settings().dsn(direct=True), phase or "all", say=wait)):  # type: ignore[arg-type]
            click.echo(name)


@main.command()
@click.option("--federation", is_flag=True, help="Serve federation.listen alone, with its own certificate.")
def api(federation: bool) -> None:
    """Answer the HTTP APIs: client.processes processes behind one listener. Run as many as you like, anywhere."""
    from bin.certificates import check_certificates
    from bin.logs import configure_logs
    from bin.metrics_folder import measure

    with told():
        found = settings()
        check_certificates(found)
        measure(found)
        from bin.serving import serve

        configure_logs(found, "federation" if federation else "api")
        serve(found, federation=federation)


@main.command()
@click.option("--shard", type=click.IntRange(min=0), default=0, show_default=True, help="Which shard of the log.")
def roomserver(shard: int) -> None:
    """Decide what happens in the rooms of one shard. A second one of the same shard waits or stops."""
    from bin.metrics_folder import measure
    from bin.running import run_component

    with told():
        found = settings()
        measure(found)
        from roomserver.service import run

        if shard >= found.log.shards:
            fail(f"there is no shard {shard}: log.shards is {found.log.shards}", USAGE)
        run_component(found, f"roomserver-{shard}", run(found, shard))


@main.command()
@click.argument("name")
def reader(name: str) -> None:
    """Run the reader NAME. `walden reader list` names them."""
    import importlib

    from bin.components import READERS
    from bin.metrics_folder import measure
    from bin.running import run_component

    if name == "list":
        for known in READERS:
            click.echo(known)
        return
    if name not in READERS:
        fail(f"there is no reader {name}; there are {', '.join(READERS)}", USAGE)
    module, _, function = READERS[name].partition(":")
    with told():
        found = settings()
        measure(found)
        run_component(found, name, getattr(importlib.import_module(module), function)(found))


@main.command()
def metrics() -> None:
    """Show Prometheus the metrics of all processes on this data directory, at server.metrics_listen (`walden up` does it)."""
    import asyncio

    with told():
        found = settings()
        if found.server.metrics_listen is None:
            fail("server.metrics_listen is empty: there is nowhere to show metrics", CONFIGURATION)
        from bin.logs import configure_logs
        from bin.metrics import serve

        configure_logs(found, "metrics")
        asyncio.run(serve(found, found.server.metrics_listen))


@main.command()
def postgres() -> None:
    """Run the embedded PostgreSQL in the foreground (`walden up` does it). SIGINT stops it in order."""
    from bin import embedded
    from bin.places import data_folder
    from bin.supervision import MARK, take_lock

    with told():
        found = settings()
        if not found.embedded:
            fail("database.dsn is set: there is no embedded database to run", CONFIGURATION)
        data_dir = data_folder(found.server.data_dir)
        if os.environ.get(MARK) != str(data_dir.resolve()):
            take_lock(data_dir)  # Else the database of a `walden up` would be ended for this one.
        one = embedded.cluster(found)
        embedded.prepare(one)
        embedded.foreground(one)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for scripts.")
def status(as_json: bool) -> None:
    """Show how far each component is, the slots, and what is in quarantine.

    Behind: bytes of WAL, and seconds since the oldest entry that waits. Exit code 4 when the database is not there.
    """
    import asyncio
    import json

    import psycopg

    from bin.status import Status, as_text, read_status, supervised

    with told():
        found = settings()
        try:
            seen = asyncio.run(read_status(found))
        except (psycopg.OperationalError, ConfigurationError) as error:
            seen = Status(found.server.name, supervised(found), error=str(error).strip())
            for one in seen.components:
                one.lag_bytes = one.lag_seconds = None
        click.echo(json.dumps(seen.as_json(), indent=2) if as_json else as_text(seen), nl=as_json)
        sys.exit(ABSENT if seen.error else 0)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of JSON objects for scripts.")
def doctor(as_json: bool) -> None:
    """Check settings, files, database, slots and grants; each finding comes with its remedy.

    Changes nothing. Exit code 1 when there is an error; warnings alone are 0.
    """
    import dataclasses
    import json

    from bin.doctor import as_text, examine

    with told():
        findings = examine(settings())
        click.echo(
            json.dumps([dataclasses.asdict(one) for one in findings], indent=2) if as_json else as_text(findings)
        )
        sys.exit(any(one.level == "error" for one in findings))


@main.command()
@click.argument("name")
@click.option("--check", is_flag=True, help="Change nothing: show what differs, with exit code 1 if anything does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts: differences, or rows mended by name.")
def rebuild(name: str, check: bool, as_json: bool) -> None:
    """Make the projection NAME, or `all`, again from the log, where it is not what the log says.

    `walden rebuild list` names the projections: tables of the schema roomserver, for which Walden has to be stopped first
    (with --check it may run), and schemas of readers (search, userdirectory, notifications), which are emptied and filled
    again while Walden runs, with progress shown; `all --check` leaves these out. All of the log is read. Can be broken off
    and begun again.
    """
    import asyncio
    import dataclasses
    import json

    from bin.logs import warnings_alone
    from bin.rebuilding import MOST_SHOWN, mend, refill
    from bin.rebuilding import check as compare
    from bin.running import database_running
    from eventlog.settings import PROJECTIONS as OF_READERS
    from roomserver.projections import PROJECTIONS

    known = [*PROJECTIONS, *OF_READERS]
    if name == "list":
        click.echo("\n".join(known))
        return
    if name != "all" and name not in known:
        fail(f"there is no projection {name}; there are {', '.join(known)}, and `all`", USAGE)
    names = [one for one in PROJECTIONS if name in ("all", one)]
    of_readers = [one for one in OF_READERS if name in ("all", one)]
    if check and not names:
        fail(f"{name} is not held against the log: rebuild it, which takes nothing from a running server", USAGE)
    with told():
        found = settings()
        warnings_alone()
        with database_running(found):
            if not check:
                mended = asyncio.run(mend(found, names))
                for one in of_readers:
                    mended[one] = asyncio.run(refill(found, one, lambda sentence: click.echo(sentence, err=True)))
                rows = "\n".join(
                    f"{one}: {count} {'outputs taken in' if one in of_readers else 'rows mended'}"
                    for one, count in mended.items()
                )
                click.echo(json.dumps(mended, indent=2) if as_json else rows)
                return
            wrong = asyncio.run(compare(found, names))
        if as_json:
            click.echo(json.dumps([dataclasses.asdict(one) for one in wrong], indent=2))
        else:
            summary = f"{len(wrong)} differences (at most {MOST_SHOWN} of each projection are shown)"
            click.echo("\n".join([*map(str, wrong), summary if wrong else "no differences"]))
        sys.exit(bool(wrong))


@main.command()
@click.option("--dry-run", is_flag=True, help="Change nothing: show what was found and what would be done.")
@click.option(
    "--planned", is_flag=True, help="Nothing was lost (pg_upgrade, a dump of a stopped server): keep all tokens."
)
@click.option("--anyway", is_flag=True, help="Recover though nothing shows that the database was restored.")
def recover(dry_run: bool, planned: bool, anyway: bool) -> None:
    """Let a database that was restored or moved go on from where it is. Stop Walden first.

    After point-in-time recovery, a disk snapshot started as it is, or a dump restored elsewhere: begins a new epoch, makes new
    replication slots, judges what has no verdict. Says what it does; can be broken off and run again. docs/recovery.md leads
    through it.
    """
    import asyncio

    from bin.logs import warnings_alone
    from bin.recovery import Options, check_stopped
    from bin.recovery import recover as run
    from bin.running import database_running

    with told():
        found = settings()
        options = Options(dry_run=dry_run, planned=planned, anyway=anyway)
        check_stopped(found)
        warnings_alone()
        with database_running(found):
            asyncio.run(run(found, options, click.echo))


@main.command()
def demo() -> None:
    """Hold a first conversation on the running server: two users, a room, messages, a sync, a SQL query."""
    from bin.demo import DemoError
    from bin.demo import demo as hold

    with told():
        try:
            hold(settings())
        except DemoError as error:
            fail(error)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-c SQL] [PSQL ARGUMENT...]")
@click.option(
    "--role",
    type=click.Choice(["owner", "writer", "roomserver", "reader", "maintenance", "history"]),
    default="owner",
    show_default=True,
    help="Whose login to use; `history` may only read the history schema.",
)
def psql(arguments: tuple[str, ...], role: str) -> None:
    """Open psql on the database, or run SQL: walden psql -c 'select count(*) from eventlog.events'."""
    from bin.running import become_psql

    with told():
        become_psql(settings().dsn(role), arguments)  # type: ignore[arg-type]


@main.command("dba-script")
def dba_script() -> None:
    """Print the SQL with which an administrator makes the roles and the database that database.dsn names (for psql)."""
    from bin.dba_script import script

    with told():
        click.echo(script(settings()), nl=False)


@main.command()
def grants() -> None:
    """Print who may do what, as the database's catalogue says (docs/grants.md)."""
    import asyncio

    from bin.grants import page

    with told():
        click.echo(asyncio.run(page(settings().dsn(direct=True))), nl=False)


@main.command()
def connections() -> None:
    """Show how many connections of which kind each process holds, and which may go through PgBouncer."""
    from bin.connections import as_markdown

    with told():
        click.echo(as_markdown(settings()), nl=False)


@main.group()
def config() -> None:
    """About the settings."""


@config.command()
def reference() -> None:
    """Print the reference page of all settings (docs/configuration.md)."""
    from bin.configuration_file import reference as page

    click.echo(page(), nl=False)


@config.command()
def path() -> None:
    """Print which walden.toml is used."""
    from eventlog.configuration import configuration_path

    found: Path = configuration_path(os.environ)
    click.echo(found)


main.add_command(user)
main.add_command(media)
main.add_command(quarantine)
main.add_command(history_sql)
main.add_command(query)
for command in (purge, erase, retention, registration_token):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="walden")
