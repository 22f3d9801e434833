"""A one-time key is handed out at most once, whatever is killed while people claim."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from people import Person
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(900)]

SEED = int(os.environ.get("WALDEN_KILL_SEED", "0")) or random.randrange(1, 1 << 31)
DEVICES, KEYS, TASKS, TOGETHER = 10, 1_000, 50, 5
TARGETS = ("worker", "roomserver-0", "backend", "api", "postgres", "everything")
ALGORITHM = "signed_curve25519"


async def test_ten_thousand_keys_are_each_handed_out_at_most_once_while_processes_are_killed(
    tmp_path: Path, figures: Callable[[str], None]
) -> None:
    chance = random.Random(SEED)
    with WholeServer(tmp_path / "d", WALDEN_CLIENT_PROCESSES="2", WALDEN_RATE_LIMITS="off") as server:
        async with contextlib.AsyncExitStack() as stack:
            owners = [await stack.enter_async_context(Person(server.url)) for _ in range(DEVICES)]
            claimer = await stack.enter_async_context(Person(server.url))
            devices: list[tuple[str, str]] = []
            for owner in (*owners, claimer):
                await owner.register()
            for owner in owners:
                keys = {f"{ALGORITHM}:K{n}": {"key": f"{owner.name} {n}", "signatures": {}} for n in range(KEYS)}
                uploaded = await owner.call("POST", "keys/upload", {"one_time_keys": keys})
                assert uploaded == {"one_time_key_counts": {ALGORITHM: KEYS}}
                devices.append((owner.user_id, (await owner.call("GET", "account/whoami"))["device_id"]))
            handed: collections.Counter[tuple[str, str]] = collections.Counter()
            doubtful = 0

            async def claim(dice: random.Random) -> None:
                """Claims until nothing is left; how many keys an answer that was lost may have had is counted."""
                nonlocal doubtful
                nothing = 0
                while nothing < 3:
                    chosen = dice.sample(devices, TOGETHER)
                    wanted = {user_id: {device_id: ALGORITHM} for user_id, device_id in chosen}
                    try:
                        status, answer = await claimer.once("POST", "keys/claim", {"one_time_keys": wanted})
                    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                        status, answer = 0, {}
                    if status != 200:
                        assert status == 0 or status >= 500, (status, answer)
                        doubtful += TOGETHER
                        await asyncio.sleep(0.1)
                        continue
                    found = [(u, k) for u, of in answer["one_time_keys"].items() for d in of.values() for k in d]
                    handed.update(found)
                    nothing = 0 if found else nothing + 1

            claiming = [asyncio.create_task(claim(random.Random(f"{SEED} {n}"))) for n in range(TASKS)]
            for name in TARGETS:
                # So that each is killed while keys are handed out.
                goal = sum(handed.values()) + 800
                while sum(handed.values()) < goal and not all(t.done() for t in claiming):  # noqa: ASYNC110 - nothing says it
                    await asyncio.sleep(0.02)
                if name == "everything":
                    await asyncio.to_thread(server.kill_everything)
                    await asyncio.to_thread(server.start)
                else:
                    await asyncio.to_thread(server.kill, name, chance)
            await asyncio.gather(*claiming)
            figures(
                f"claims (seed {SEED}): {sum(handed.values())} of {DEVICES * KEYS} keys arrived, "
                f"answers that would have had at most {doubtful} were lost"
            )
            assert set(handed.values()) == {1}, [key for key, times in handed.items() if times > 1]
            assert DEVICES * KEYS - doubtful <= len(handed) <= DEVICES * KEYS
            ((claimed,),) = [
                tuple(row.values())
                for row in server.rows("select count(*) from writer.one_time_keys where claimed_at is not null")
            ]
            assert claimed <= DEVICES * KEYS
            for owner in owners:
                # Whoever syncs afterwards knows how many are left: a few of each may be.
                left = (await owner.sync())["device_one_time_keys_count"].get(ALGORITHM, 0)
                mine = sum(1 for user_id, _ in handed if user_id == owner.user_id)
                assert left + mine <= KEYS
            server.rest()
