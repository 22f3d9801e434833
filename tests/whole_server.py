"""A whole Walden as real processes, with what tests of processes need besides: SQL, kills by component, coming to rest.

Invariant: only processes of this installation are signalled, by process id. Methods block; call them with `asyncio.to_thread`
while people of `people` talk.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
from installations import Installation
from psycopg.rows import dict_row

from bin.status import supervised
from eventlog.configuration import load_settings
from eventlog.settings import Role, Settings

SERVER_NAME = "walden.example"
REST_SECONDS = 60.0


class WholeServer(Installation):
    """An installation that anybody may register on; `environ` overrides its settings."""

    def __init__(self, data_dir: Path, **environ: str) -> None:
        super().__init__(data_dir, **{"WALDEN_SERVER_NAME": SERVER_NAME, "WALDEN_REGISTRATION": "open", **environ})

    @property
    def settings(self) -> Settings:
        """The settings that its processes have."""
        return load_settings(self.environ)

    def rows(self, query: LiteralString, role: Role = "owner", **values: Any) -> list[dict[str, Any]]:
        """The rows of one statement, run in a connection of its own."""
        with (
            psycopg.connect(self.settings.dsn(role), autocommit=True, row_factory=dict_row) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def pids(self) -> dict[str, int]:
        """Process ids of the supervised components that run."""
        return {one.name: one.pid for one in supervised(self.settings) if one.pid}

    def target(self, name: str, chance: random.Random) -> psutil.Process | None:
        """One process by name: a component, `worker` (of the API), `backend`, `walsender`, `supervisor`. None: not now."""
        if name == "supervisor":
            return None if self.process is None else psutil.Process(self.process.pid)
        pids = self.pids()
        parent = pids.get({"worker": "api", "backend": "postgres", "walsender": "postgres"}.get(name, name))
        if parent is None:
            return None
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(parent)
            if name not in ("worker", "backend", "walsender"):
                return process
            # PostgreSQL's processes say in their title whose session they are.
            mark = {"worker": "", "backend": " walden_", "walsender": " walsender "}[name]
            found = [one for one in process.children() if mark in " ".join(one.cmdline())]
            return chance.choice(found) if found else None
        return None

    def kill(self, name: str, chance: random.Random | None = None, seconds: float = 30.0) -> int:
        """kill -9 of one process by name, as soon as there is one; its process id."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (process := self.target(name, chance or random.Random())) is not None:
                process.kill()
                if name == "supervisor" and self.process is not None:
                    self.process.wait(10)
                return int(process.pid)
            time.sleep(0.05)
        raise AssertionError(f"there is no {name} to kill:\n{self.logs()}")

    def rest(self, seconds: float = REST_SECONDS) -> dict[str, Any]:
        """Wait until `walden status` shows everything running, nothing behind, no slot lost; the status."""
        end = time.monotonic() + seconds
        while True:
            status = self.status()
            if not (restless := unrest(status)):
                return status
            assert time.monotonic() < end, f"no rest after {seconds:.0f} s: {restless}\n{self.logs()}"
            time.sleep(0.3)


@contextlib.asynccontextmanager
async def running(server: WholeServer) -> AsyncIterator[WholeServer]:
    """A server from start to stop, for who serves it something from the same event loop (a proxy)."""
    await asyncio.to_thread(server.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


def unrest(status: dict[str, Any]) -> list[str]:
    """What keeps an installation from being at rest; quarantine, too, for nothing that tests send belongs there."""
    if status["error"]:
        return [status["error"]]
    found = [f"{one['name']} is {one['state']}" for one in status["components"] if one["state"] != "running"]
    found += [
        f"{one['name']} is behind by {one['lag_bytes']} bytes, {one['lag_seconds']} s"
        for one in status["components"]
        if one["lag_bytes"] != 0 or one["lag_seconds"] != 0
    ]
    found += [f"slot {one['name']} is lost" for one in status["slots"] if one["state"] == "lost"]
    if not any("roomserver" in one["name"] and one["state"] == "active" for one in status["slots"]):
        found.append("the room server streams from no slot")
    found += [f"in quarantine: {one}" for one in status["quarantine"]]
    return found + ([f"{status['deferred']} entries are deferred"] if status["deferred"] else [])
