"""One run: the servers side by side, every row on each in turn, round by round, and everything stopped at the end.

A row that fails on one server is recorded there with its reason and the run goes on; nothing is repeated.
"""

import asyncio
import gc
import platform
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bin.benchmark.cluster import REPORTED, SETTINGS, file_system, work_folder
from bin.benchmark.delivery import SendToSync, Waiting
from bin.benchmark.history import History
from bin.benchmark.keys import KeyClaims, ToDevice
from bin.benchmark.membership import Joins, Rooms
from bin.benchmark.reading import IdleSync, InitialSync, MessagesPage
from bin.benchmark.row import Figure, Row, Sample, Scale
from bin.benchmark.servers import RunningServer, Server, Walden
from bin.benchmark.storage import Bytes, BytesLarge
from bin.benchmark.synapse import VERSION, Synapse
from bin.benchmark.throughput import ManyRooms, OneRoom

ROWS: tuple[type[Row], ...] = (
    OneRoom,
    ManyRooms,
    SendToSync,
    Rooms,
    Joins,
    InitialSync,
    IdleSync,
    MessagesPage,
    Waiting,
    ToDevice,
    KeyClaims,
    Bytes,
    BytesLarge,
    History,
)
PEER = "synapse"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for; `servers` in the order of their turns."""

    servers: tuple[str, ...]
    rows: tuple[type[Row], ...]
    rounds: int
    scale: Scale
    checkout: Path
    results: Path
    work: Path | None = None
    binaries: Path | None = None
    synapse_venv: Path | None = None
    base_url: str | None = None
    keep: bool = False
    quick: bool = False


@dataclass(slots=True)
class Outcome:
    """One row on one server: its rounds, and the reason why it has no more of them."""

    samples: list[Sample] = field(default_factory=list)
    error: str | None = None

    def value(self, key: str) -> float | None:
        """The median over the rounds; None when no round gave it."""
        values = [v for v in (sample.values.get(key) for sample in self.samples) if v is not None]
        return statistics.median(values) if values else None

    def faults(self) -> list[str]:
        return ([self.error] if self.error else []) + [fault for sample in self.samples for fault in sample.faults]


@dataclass(slots=True)
class Results:
    """All that a run found: outcomes by row name and server name."""

    servers: tuple[str, ...]
    figures: dict[str, tuple[Figure, ...]]
    outcomes: dict[str, dict[str, Outcome]]
    machine: dict[str, Any]
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def faulty(self) -> bool:
        return any(outcome.faults() for row in self.outcomes.values() for outcome in row.values())


def sentence(reason: BaseException) -> str:
    """The innermost reason of an exception (groups opened), on one line."""
    while isinstance(reason, BaseExceptionGroup):
        reason = reason.exceptions[0]
    if isinstance(reason, TimeoutError) and not str(reason):
        return "timed out"
    text = " ".join(str(reason).split()) or type(reason).__name__
    return f"{type(reason).__name__}: {text}"[:600]


def machine(folder: Path) -> dict[str, Any]:
    """What a reader must know of the machine."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    cores = Path("/proc/cpuinfo").read_text().count("processor\t")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    return {
        "processor": model,
        "cores": cores,
        "memory_mib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": file_system(folder),
        "load_at_start": Path("/proc/loadavg").read_text().split()[0],
        "postgres_settings": SETTINGS,
        "synapse_version": VERSION,
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


class Run:
    """Carries out the options; `execute` may be cancelled at any time and still stops what it started."""

    def __init__(self, options: Options, progress: Callable[[str], None]) -> None:
        self.options = options
        self.progress = progress
        self.folder = work_folder(options.work)
        self.servers: dict[str, Server] = {}
        self.broken: dict[str, str] = {}
        self.results = Results(
            options.servers,
            {row.name: row.figures(options.scale) for row in options.rows},
            {row.name: {name: Outcome() for name in options.servers} for row in options.rows},
            machine(self.folder),
        )

    async def execute(self) -> Results:
        try:
            for name in self.options.servers:
                await self._start(name)
            for row in self.options.rows:
                await self._row(row)
        finally:
            await asyncio.shield(self.stop())
        return self.results

    async def _start(self, name: str) -> None:
        self.progress(f"{name}: starting")
        server = self._server(name)
        self.servers[name] = server
        try:
            await server.start()
        except Exception as reason:
            log = f"\n{server.group.tail()}" if server.group is not None else ""
            self.progress(f"{name} did not start: {sentence(reason)}{log}")
            self.broken[name] = f"{name} did not start: {sentence(reason)}"
            return
        assert server.origin is not None
        self.progress(f"{name}: ready on http://{server.origin.host}:{server.origin.port}")
        if server.database is not None:
            settings = dict(await server.database.ask("settings", names=list(REPORTED)))
            self.results.machine["postgres_settings"] = settings
            self.results.machine["postgres_version"] = (await server.database.ask("version"))[0][0]

    def _server(self, name: str) -> Server:
        options = self.options
        if options.base_url is not None:
            return RunningServer(name, options.base_url)
        if name == PEER:
            venv = options.synapse_venv or options.checkout / ".venv-synapse"
            return Synapse(venv, self.folder / name, options.binaries, self.progress)
        return Walden(options.checkout, self.folder / name, options.binaries)

    async def _row(self, kind: type[Row]) -> None:
        prepared: dict[str, Row] = {}
        for name in self.options.servers:
            outcome = self.results.outcomes[kind.name][name]
            if name in self.broken:
                outcome.error = self.broken[name]
                continue
            say = self._teller(f"{kind.name} · {name} · set-up")
            row = kind(self.servers[name], self.options.scale, self.options.rounds, say)
            start = time.perf_counter()
            try:
                async with asyncio.timeout(kind.prepare_seconds):
                    await row.prepare()
            except Exception as reason:
                outcome.error = f"set-up: {sentence(reason)}"
                say(outcome.error)
                continue
            say(f"done in {time.perf_counter() - start:.1f} s")
            prepared[name] = row
        for number in range(self.options.rounds):
            for name, row in prepared.items():
                outcome = self.results.outcomes[kind.name][name]
                if outcome.error is not None:
                    continue
                say = self._teller(f"{kind.name} · {name} · round {number + 1}/{self.options.rounds}")
                await self._measure(row, number, outcome, say)

    async def _measure(self, row: Row, number: int, outcome: Outcome, say: Callable[[str], None]) -> None:
        # A collection of the generator's own garbage would be measured as the server's latency.
        gc.collect()
        gc.disable()
        try:
            async with asyncio.timeout(row.measure_seconds):
                sample = await row.measure(number)
        except Exception as reason:
            outcome.error = f"round {number + 1}: {sentence(reason)}"
            say(outcome.error)
            return
        finally:
            gc.enable()
        outcome.samples.append(sample)
        figures = [f for f in row.figures(self.options.scale) if sample.values.get(f.key) is not None]
        text = ", ".join(f"{sample.values[figure.key]:.4g} {figure.unit}".strip() for figure in figures)
        share = f" (generator {100 * sample.usage.generator:.0f} % of a core)" if sample.usage else ""
        say(text + share + "".join(f"\n    FAULT {fault}" for fault in sample.faults))

    def _teller(self, place: str) -> Callable[[str], None]:
        return lambda text: self.progress(f"{place}: {text}")

    async def stop(self) -> None:
        """Stops every server; removes the work folder unless it is to be kept."""
        for name, server in self.servers.items():
            self.progress(f"{name}: stopping")
            if server.origin is not None and name not in self.broken:
                self.results.requests[name] = asdict(server.origin.counts)
            await server.stop()
        if self.options.keep:
            self.progress(f"kept: {self.folder}")
        else:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def kill(self) -> None:
        """The last resort, from a process that is ending: what `stop` did not reach."""
        for server in self.servers.values():
            if server.group is not None and server.group.running():
                server.group.stop()
            for cluster in filter(None, (server.cluster, *server.others)):
                cluster.stop()
