"""A server under test: how it is started and stopped, and what the benchmark may ask of it beside the public API.

What a server cannot tell (memory of a server that somebody else runs, SQL without a DSN) is None and printed as such.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from bin.benchmark.account import Account
from bin.benchmark.cluster import Cluster, Database
from bin.benchmark.connection import ConnectionFailed, Origin, RequestCounts
from bin.benchmark.processes import Group, Meter, memory
from bin.ports import free_port

REGISTRATIONS_IN_FLIGHT = 8


class Server:
    """Base of the servers: `start` leaves `origin` ready to be asked, `stop` may be called at any time."""

    name = "server"
    extremities_query: str | None = None
    state_tables: tuple[str, ...] = ()
    """Names of the tables (schema.table, or schema.prefix*) that hold room state, for bytes per state change."""

    def __init__(self) -> None:
        self.origin: Origin | None = None
        self.database: Database | None = None
        self.cluster: Cluster | None = None
        self.others: list[Cluster] = []
        self.group: Group | None = None
        self._users = 0

    async def start(self) -> None:
        raise NotImplementedError

    async def wait_until_ready(self, timeout: float) -> None:
        """Asks /versions until it is a 200; RuntimeError when it never is."""
        assert self.origin is not None
        deadline = time.monotonic() + timeout
        request = f"GET /_matrix/client/versions HTTP/1.1\r\nHost: {self.origin.host}\r\n\r\n".encode()
        reason = ""
        while time.monotonic() < deadline:
            if self.group is not None and not self.group.running() and not self.group.pids():
                raise RuntimeError("it ended while starting; --keep keeps its log")
            try:
                response = await self.origin.request(request, 5.0)
                if response.status == 200:
                    # The attempts until now were questions whether it is there, not requests of a row.
                    self.origin.counts = RequestCounts()
                    return
                reason = f"status {response.status}"
            except ConnectionFailed as failure:
                reason = str(failure)
            await asyncio.sleep(0.2)
        raise RuntimeError(f"no answer within {timeout:g} s ({reason}); --keep keeps its log")

    async def register(self, prefix: str, count: int) -> list[Account]:
        """New users of this run, registered a few at a time; in the order of their numbers."""
        assert self.origin is not None
        origin = self.origin
        gate = asyncio.Semaphore(REGISTRATIONS_IN_FLIGHT)
        first = self._users
        self._users += count
        run = f"{os.getpid():x}{int(time.time()) % 100000:x}"

        async def one(number: int) -> Account:
            async with gate:
                return await Account.register(origin, f"{prefix}-{run}-{number}")

        return list(await asyncio.gather(*(one(number) for number in range(first, first + count))))

    async def extremities(self, room_id: str) -> float | None:
        if self.database is None or self.extremities_query is None:
            return None
        return await self.database.number(self.extremities_query, room_id=room_id)

    def memory(self) -> int | None:
        return None if self.group is None else memory(self.group.pids())

    def meter(self) -> Meter:
        """Starts measuring who uses the processor."""
        return Meter(
            self.group.pids if self.group is not None else list, self.cluster.pids if self.cluster is not None else list
        )

    async def stop(self) -> None:
        if self.origin is not None:
            self.origin.close()
        if self.group is not None:
            await asyncio.to_thread(self.group.stop)
        for cluster in filter(None, (self.cluster, *self.others)):
            await asyncio.to_thread(cluster.stop)


class RunningServer(Server):
    """A server that somebody else started and will stop, known by its base URL (plain HTTP)."""

    def __init__(self, name: str, base_url: str) -> None:
        super().__init__()
        self.name = name
        self.base_url = base_url

    async def start(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme != "http" or parts.hostname is None:
            raise RuntimeError(f"--base-url wants http://host:port, not {self.base_url}")
        self.origin = Origin(parts.hostname, parts.port or 80)
        await self.wait_until_ready(10.0)


class Walden(Server):
    """Walden as `bin/up` starts it, with a database of the benchmark's own and everything else in a new data directory."""

    name = "walden"
    extremities_query = "walden_extremities"
    state_tables = (
        "roomserver.state",
        "roomserver.lines",
        "roomserver.memberships",
        "roomserver.heads",
        "roomserver.resolutions",
    )
    START_SECONDS = 300.0

    def __init__(self, checkout: Path, folder: Path, binaries: Path | None) -> None:
        super().__init__()
        self.checkout = checkout
        self.folder = folder
        self.binaries = binaries

    async def start(self) -> None:
        program = self.checkout / "bin" / "up"
        if not program.exists():
            raise RuntimeError(f"{program} is not there")
        self.folder.mkdir(parents=True)
        self.cluster = await asyncio.to_thread(Cluster, self.folder / "postgresql", self.binaries)
        await asyncio.to_thread(self.cluster.start)
        self.database = await self.cluster.create_database()
        client, federation = free_port(), free_port()
        data = self.folder / "data"
        data.mkdir()
        environment = {
            "WALDEN_CONFIG": str(data / "walden.toml"),
            "WALDEN_DATA_DIR": str(data),
            "WALDEN_SERVER_NAME": "walden.test",
            "WALDEN_CLIENT_LISTEN": f"127.0.0.1:{client}",
            "WALDEN_FEDERATION_LISTEN": f"127.0.0.1:{federation}",
            "WALDEN_REGISTRATION": "open",
            "WALDEN_RATE_LIMITS": "off",
            "WALDEN_DATABASE_DSN": self.database.dsn,
        }
        command = [sys.executable, str(program)] if not os.access(program, os.X_OK) else [str(program)]
        self.group = Group(command, self.folder / "walden.log", environment)
        self.origin = Origin("127.0.0.1", client)
        await self.wait_until_ready(self.START_SECONDS)

    async def stop(self) -> None:
        if self.group is not None:
            await asyncio.to_thread(self.group.stop, signal.SIGINT)
        await super().stop()
