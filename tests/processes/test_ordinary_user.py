"""An ordinary user runs the whole of it, and nothing of it runs as anybody else."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import unprivileged
from people import Person
from whole_server import WholeServer

CHECKOUT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(300)]


VERSION = "python{}.{}".format(*sys.version_info)


def _interpreter() -> tuple[str, dict[str, str]] | None:
    """A Python that an unprivileged user can run with what is installed here, and the environment that it needs.

    The virtual environment's own if it can be reached, else the machine's of the same version with its packages.
    """
    packages = str(Path(sys.executable).parent.parent / "lib" / VERSION / "site-packages")
    path = os.pathsep.join([str(CHECKOUT), packages])
    candidates: list[tuple[str, dict[str, str]]] = [
        (sys.executable, {}),
        (f"/usr/bin/{VERSION}", {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}),
    ]
    check = "import os, sys, bin.command, psycopg_binary; sys.exit(not os.access(sys.executable, os.X_OK))"
    for python, environment in candidates:
        command = [*unprivileged(), python, "-c", check]
        with contextlib.suppress(FileNotFoundError, PermissionError):
            done = subprocess.run(command, cwd="/", env=os.environ | environment, capture_output=True, check=False)
            if done.returncode == 0:
                return python, environment
    return None


INTERPRETER = _interpreter()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the user who runs it all can get to: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="walden-home-") as folder:
        yield Path(folder)


@pytest.mark.skipif(INTERPRETER is None, reason="an unprivileged user can reach no Python, or not this checkout")
async def test_an_ordinary_user_runs_it_all_and_it_survives_the_death_of_everything(home: Path) -> None:
    user = int(unprivileged()[1].partition("=")[2]) if unprivileged() else os.geteuid()
    if os.geteuid() == 0:
        os.chown(home, user, -1)
    assert INTERPRETER is not None
    python, environment = INTERPRETER
    server = WholeServer(home / "d", HOME=str(home), **environment)
    server.python = (*unprivileged(), python)
    with server:
        assert {process.uids().real for process in server.processes()} == {user}
        async with Person(server.url) as one:
            await one.register()
            room_id = await one.create_room()
            before = await one.send(room_id, "before")
            assert await asyncio.to_thread(server.kill_everything) > 8
            await asyncio.to_thread(server.start)
            after = await one.send(room_id, "after")
            await one.sync()
            assert one.event_ids(room_id)[-2:] == [before, after]
        assert {process.uids().real for process in server.processes()} == {user}
        assert server.stop() == 0
        assert server.processes() == []
