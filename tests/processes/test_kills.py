"""kill -9 of any process at any moment loses nothing that was acknowledged, doubles nothing and puts nothing out of order."""

import asyncio
import collections
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from load import Load, compare
from people import Person, segment
from projections import differences
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(1800)]

ROUNDS = int(os.environ.get("WALDEN_KILL_ROUNDS", "4"))
SEED = int(os.environ.get("WALDEN_KILL_SEED", "0")) or random.randrange(1, 1 << 31)
TARGETS = (
    "roomserver-0",
    "roomserver-1",
    "api",
    "worker",
    "postgres",
    "supervisor",
    "backend",
    "walsender",
    "maintenance",
    "projections",
    "everything",
)
SENDERS, ROOMS = 8, 4
RECOVERY_SECONDS = 90.0


async def test_killing_any_one_process_under_load_loses_nothing(tmp_path: Path, figures: Callable[[str], None]) -> None:
    chance = random.Random(SEED)
    # Two API processes and two shards: whatever can go wrong with one of each can go wrong with these, and more.
    with WholeServer(tmp_path / "d", WALDEN_CLIENT_PROCESSES="2", WALDEN_LOG_SHARDS="2") as server:
        load = await Load.prepare(server.url, SENDERS, ROOMS, chance)
        # One who listens all the time with long polls, one who asks again and again, and one who comes afterwards.
        async with (
            Person(server.url) as patient,
            Person(server.url, timeline_limit=3) as restless,
            Person(server.url) as late,
        ):
            for person in (patient, restless, late):
                await person.register()
                for room_id in load.rooms:
                    await person.join(room_id)
            patient.listen(poll=10)
            restless.listen(poll=0.1)
            try:
                load.begin()
                killed, seconds = await _kill(server, load, chance)
                await load.end()
                status = await asyncio.to_thread(server.rest)
                assert status["quarantine"] == []
                last = [await load.senders[0].send(room_id, "the last") for room_id in load.rooms]
                await asyncio.gather(
                    *(p.until_seen(r, e) for p in (patient, restless) for r, e in zip(load.rooms, last, strict=True))
                )
                await late.sync()
                compare(load, [patient, restless, late])
                await _values(load)
            finally:
                await load.close()
            await asyncio.to_thread(server.rest)
            assert differences(server.settings.dsn()) == {}
        repeats = sum(person.repeats for person in load.senders)
        figures(
            f"kills (seed {SEED}): {ROUNDS} rounds, {load.count} events acknowledged, {repeats} requests repeated, "
            f"{patient.failures + restless.failures} syncs failed, {patient.gaps + restless.gaps} gaps followed; "
            f"recovery median {statistics.median(s for _, s in seconds):.1f} s, "
            f"longest {max(s for _, s in seconds):.1f} s; "
            + ", ".join(f"{name} {n} times" for name, n in killed.items())
        )
        slowest = {name: max(s for n, s in seconds if n == name) for name in killed}
        figures("longest recovery after: " + ", ".join(f"{name} {s:.1f} s" for name, s in slowest.items()))


async def _kill(
    server: WholeServer, load: Load, chance: random.Random
) -> tuple[collections.Counter[str], list[tuple[str, float]]]:
    """ROUNDS kills, of one process or of all, each once the one before is overcome.

    How many of what, and for each how many seconds passed until all rooms went on.
    """
    killed: collections.Counter[str] = collections.Counter()
    seconds: list[tuple[str, float]] = []
    names: list[str] = []
    for _ in range(ROUNDS):
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        names = names or chance.sample(TARGETS, len(TARGETS))
        name = names.pop()
        if name == "everything":
            await asyncio.to_thread(server.kill_everything)
        else:
            await asyncio.to_thread(server.kill, name, chance)
        began = time.monotonic()
        killed[name] += 1
        if name in ("supervisor", "everything"):
            await asyncio.to_thread(server.start)
        try:
            seconds.append((name, await load.recovered(began, RECOVERY_SECONDS)))
        except TimeoutError:
            raise AssertionError(f"no recovery from the death of {name}:\n{server.logs()}") from None
    return killed, seconds


async def _values(load: Load) -> None:
    for person in load.senders:
        if person.user_id in load.account_data:
            path = f"user/{segment(person.user_id)}/account_data/test.counter"
            assert (await person.call("GET", path))["value"] == load.account_data[person.user_id]
