"""Point-in-time recovery under load, as an administrator does it: what was acknowledged before the moment is there, once, and
whoever comes from the lost time is brought to the restored present without error, gap or loop."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import shutil
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from clusters import Cluster
from load import Load, compare
from nio import SyncResponse
from nio_person import NioPerson, good
from people import Person
from projections import differences
from restores import SMALL, ArchivedCluster, dump, load_dump
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("WALDEN_RECOVERY_ROUNDS", "1"))
BACK = float(os.environ.get("WALDEN_RECOVERY_BACK", "6"))
"""Seconds of history that a restore takes back; half a minute when it is tried by hand."""
SEED = int(os.environ.get("WALDEN_RECOVERY_SEED", "0")) or random.randrange(1, 1 << 31)
SENDERS, ROOMS = 8, 3
RECOVERY_SECONDS = 120.0
OUTAGE_SECONDS = 600.0
WIDE = {"room": {"timeline": {"limit": 1000}}}


class Observer(Person):
    """One who does with a room what stock clients do when it is told whole: forgets its timeline and reads it again."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.told_whole = 0

    async def call(self, method: str, path: str, body: Any = None, **parameters: str) -> Any:
        answer = await super().call(method, path, body, **parameters)
        if path == "sync" and "since" in parameters:
            for room_id, room in answer.get("rooms", {}).get("join", {}).items():
                told = room["state"]["events"] + room["timeline"]["events"]
                whole = any(event["type"] == "m.room.create" for event in told)
                if whole and self.timelines.pop(room_id, None) is not None:
                    assert room["timeline"]["limited"], (
                        "a room was told whole, and its timeline as if there were no gap"
                    )
                    del self.seen[room_id]
                    self.told_whole += 1
        return answer


@dataclass
class Listener:
    """A matrix-nio client, with what came since it was last told rooms whole."""

    nio: NioPerson
    tokens: list[str] = field(default_factory=list)
    """Every token that it was given, one after the other."""
    _latest: SyncResponse | None = None

    async def begin(self, url: str, rooms: list[str]) -> None:
        good(await self.nio.client.register(self.nio.client.user, "a fine password"))
        for room_id in rooms:
            good(await self.nio.client.join(room_id))
        self.nio.client.add_response_callback(self._answer, SyncResponse)
        self.nio.listen(WIDE)

    async def _answer(self, response: SyncResponse) -> None:
        if response is not self._latest:  # nio calls twice
            self._latest = response
            self.tokens.append(response.next_batch)

    def epochs(self) -> list[str]:
        """The epochs of its tokens, each once, in order."""
        return list(dict.fromkeys(token.split("_")[1] for token in self.tokens))


@dataclass
class Figures:
    """What the rounds took, in seconds."""

    recover: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    kills: int = 0
    killed_midway: int = 0


class Way(Protocol):
    """A way to take a database back. Methods block."""

    name: str
    why: str
    """What a server that is started without `walden recover` says of it."""

    def back_up(self) -> None:
        """What is done some time before the moment."""

    def mark(self) -> None:
        """What is acknowledged before this begins is to be there."""

    def take_back(self, server: WholeServer) -> None:
        """The database of a stopped server is that of the moment again."""


class ToAMoment:
    """A base backup and archived WAL up to the moment, in the place of what was there."""

    name, why = "point-in-time recovery", "recovered to a target"

    def __init__(self, clusters: contextlib.ExitStack) -> None:
        self.cluster = clusters.enter_context(ArchivedCluster(18))
        self.cluster.execute("create database walden")
        self.dsn = self.cluster.dsn("walden")
        self.backup, self.moment = Path(), ""

    def back_up(self) -> None:
        self.backup = self.cluster.base_backup()

    def mark(self) -> None:
        self.moment = self.cluster.now()

    def take_back(self, server: WholeServer) -> None:
        self.cluster.archive_all()
        self.cluster.stop()
        self.cluster.restore(self.backup, recovery_target_time=self.moment)
        shutil.rmtree(self.backup)


class Dumped:
    """A dump of the running server, restored as a new database of another cluster."""

    name, why = "a dump restored elsewhere", "dump"

    def __init__(self, clusters: contextlib.ExitStack) -> None:
        self.here, self.there = (clusters.enter_context(Cluster(18, SMALL)) for _ in range(2))
        self.here.execute("create database walden")
        self.dsn = self.here.dsn("walden")
        self.file, self.database, self.count = self.here.root / "dump", "walden", 0

    def back_up(self) -> None:
        """It is one moment, and needs nothing else."""

    def mark(self) -> None:
        self.file = self.here.root / "dump"
        dump(self.here, self.file, self.database)

    def take_back(self, server: WholeServer) -> None:
        self.here, self.there = self.there, self.here
        self.count += 1
        self.database = f"walden{self.count}"
        self.file = Path(shutil.copy(self.file, self.here.root / "dump.restored"))
        self.file.chmod(0o644)
        load_dump(self.here, self.file, self.database)
        server.environ["WALDEN_DATABASE_DSN"] = self.here.dsn(self.database)


@pytest.mark.parametrize("kind", [ToAMoment, Dumped])
async def test_a_restore_under_load_brings_everybody_to_the_restored_present(
    tmp_path: Path, figures: Callable[[str], None], kind: Callable[[contextlib.ExitStack], ToAMoment | Dumped]
) -> None:
    chance = random.Random(SEED)
    took = Figures()
    with contextlib.ExitStack() as clusters:
        way = kind(clusters)
        with WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=way.dsn) as server:
            load = await Load.prepare(server.url, SENDERS, ROOMS, chance)
            load.restores = True
            for sender in load.senders:
                sender.patience = OUTAGE_SECONDS
            async with (
                Observer(server.url) as patient,
                Observer(server.url) as restless,
                NioPerson(server.url, "nia") as nia,
            ):
                for person in (patient, restless):
                    await person.register()
                    for room_id in load.rooms:
                        await person.join(room_id)
                listener = Listener(nia)
                await listener.begin(server.url, load.rooms)
                patient.listen(poll=10)
                restless.listen(poll=0.1)
                try:
                    load.begin()
                    await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                    for _ in range(ROUNDS):
                        await _round(way, server, load, [patient, restless], listener, chance, took)
                    await load.end()
                    status = await asyncio.to_thread(server.rest)
                    assert status["quarantine"] == []
                    last = [await load.senders[0].send(room_id, "the last") for room_id in load.rooms]
                    for room_id, event_id in zip(load.rooms, last, strict=True):
                        await asyncio.gather(
                            patient.until_seen(room_id, event_id), restless.until_seen(room_id, event_id)
                        )
                        await nia.until(lambda r=room_id, e=event_id: any(x.event_id == e for x in nia.events[r]))
                    async with Person(server.url) as late:
                        await late.register()
                        for room_id in load.rooms:
                            await late.join(room_id)
                        await late.sync()
                        for room_id in load.rooms:
                            joined = late.timelines[room_id][-1]["event_id"]
                            await asyncio.gather(*(p.until_seen(room_id, joined) for p in (patient, restless)))
                        compare(load, [patient, restless, late])
                    assert listener.epochs()[-1] == server.status()["epoch"]
                    assert patient.told_whole >= ROUNDS * ROOMS
                finally:
                    await load.close()
            await asyncio.to_thread(server.rest)
            assert differences(server.settings.dsn()) == {}
    figures(
        f"{way.name} (seed {SEED}): {ROUNDS} restores to {BACK:.0f} s back, {load.count} events acknowledged in "
        f"what stands, {sum(took.lost)} taken back; recover was killed {took.kills} times, {took.killed_midway} of them midway, "
        f"and took {min(took.recover):.1f} to {max(took.recover):.1f} s; all rooms went on {min(took.back):.1f} to "
        f"{max(took.back):.1f} s after `walden up`"
    )


async def _login(person: Person) -> str:
    """A session of its own for somebody who has an account; its refresh token."""
    body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": person.user_id}}
    made = await person.insist("POST", "login", {**body, "password": "a fine password", "refresh_token": True})
    return str(made["refresh_token"])


async def _refresh(url: str, token: str) -> str:
    """Rotate a refresh token, and see that its access token is of use; the next refresh token."""
    async with Person(url) as person:
        made = await person.insist("POST", "refresh", {"refresh_token": token})
        person.token = made["access_token"]
        await person.insist("GET", "account/whoami")
    return str(made["refresh_token"])


async def _round(
    way: Way,
    server: WholeServer,
    load: Load,
    observers: list[Observer],
    listener: Listener,
    chance: random.Random,
    took: Figures,
) -> None:
    session = await _login(observers[0])
    await asyncio.to_thread(way.back_up)
    await asyncio.sleep(chance.uniform(1.0, 4.0))
    before = {room_id: dict(known) for room_id, known in load.acknowledged.items()}
    await asyncio.to_thread(way.mark)
    await asyncio.sleep(BACK)
    rotated = await _refresh(server.url, await _refresh(server.url, session))
    # A transaction id of the time that will be lost, and its event, which everybody has seen.
    room_id, txn, sender = load.rooms[0], f"both.{len(took.back)}", load.senders[0]
    lost = await sender.send(room_id, "said in the time that is lost", txn)
    for person in observers:
        await person.until_seen(room_id, lost)
    await listener.nio.until(lambda: any(event.event_id == lost for event in listener.nio.events[room_id]))
    whole = [person.told_whole for person in observers]
    epochs, heard = listener.epochs(), len(listener.tokens)

    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(way.take_back, server)
    took.lost.append(load.count - sum(map(len, before.values())))
    for known, kept in zip(load.acknowledged.values(), before.values(), strict=True):
        known.clear()
        known.update(kept)
    load.account_data.clear()

    refused = await asyncio.to_thread(server.walden, "up")
    assert refused.returncode == 1
    assert "walden recover" in refused.stderr and way.why in refused.stderr
    await _recover(server, chance, took)
    await asyncio.to_thread(server.start)
    began = time.monotonic()
    again = await sender.send(room_id, "said again under the same transaction id", txn)
    assert again != lost
    await _refresh(server.url, await _refresh(server.url, rotated))
    for person, times in zip(observers, whole, strict=True):
        await person.until_seen(room_id, again)
        assert person.told_whole == times + ROOMS
    took.back.append(await load.recovered(began, RECOVERY_SECONDS))
    nio = listener.nio
    await nio.until(lambda: any(event.event_id == again for event in nio.events[room_id]), RECOVERY_SECONDS)
    assert listener.epochs() == [*epochs, server.status()["epoch"]]
    # Going round in circles would show as the same token over and over. (Of the lost time it has one several times: a server that
    # stops answers who waits at once.)
    fresh = collections.Counter(token for token in listener.tokens[heard:] if token.split("_")[1] not in epochs)
    assert fresh.most_common(1)[0][1] < 5, fresh.most_common(3)
    with load.held():
        await asyncio.to_thread(server.rest)


async def _recover(server: WholeServer, chance: random.Random, took: Figures) -> None:
    """`walden recover`, shown first, killed on its way, and run to its end, twice."""
    before = server.rows("select epoch from eventlog.epochs order by ordinal")
    shown = await asyncio.to_thread(server.walden, "recover", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "would begin an epoch" in shown.stdout and "would make replication slot" in shown.stdout
    assert server.rows("select epoch from eventlog.epochs order by ordinal") == before
    with server.log.open("ab") as log:
        command = [sys.executable, "-m", "bin.command", "recover"]
        process = await asyncio.create_subprocess_exec(*command, env=server.environ, stdout=PIPE, stderr=log)
        assert process.stdout is not None
        # It says a sentence for all that it has done: after any of them.
        async with asyncio.timeout(RECOVERY_SECONDS):
            for _ in range(chance.randint(3, 12)):
                log.write(await process.stdout.readline())
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        took.killed_midway += await process.wait() != 0
    took.kills += 1
    began = time.monotonic()
    done = await asyncio.to_thread(server.walden, "recover")
    took.recover.append(time.monotonic() - began)
    assert done.returncode == 0, done.stderr
    assert "it goes on when the server starts" not in done.stdout, done.stdout
    behind = server.rows(
        "select c.component, r.position - c.position as behind from eventlog.positions c"
        " join eventlog.positions r on r.component = 'roomserver' and r.shard = c.shard where c.position <> r.position"
    )
    assert behind == []
    (row,) = server.rows(
        "select count(*) as begun from eventlog.epochs where reason = 'recover' and ready_at is not null"
    )
    assert row["begun"] == len(took.recover)
    again = await asyncio.to_thread(server.walden, "recover")
    assert again.returncode == 0 and "nothing to recover" in again.stdout
