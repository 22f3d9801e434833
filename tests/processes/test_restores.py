"""Restores of every kind but point-in-time: a snapshot, a bare backup, dumps, copies side by side; and a failover, which is
none."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from clusters import Cluster
from people import Json, Person
from projections import differences
from restores import SMALL, ArchivedCluster, dump, load_dump
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(900)]


@contextlib.contextmanager
def served(server: WholeServer) -> Iterator[WholeServer]:
    """A server that the block may start and stop; nothing of it is left behind."""
    try:
        yield server
    finally:
        server.__exit__(None, None, None)


@contextlib.asynccontextmanager
async def somebody(server: WholeServer) -> AsyncIterator[tuple[Person, str]]:
    """A person with a room that holds a message."""
    async with Person(server.url) as person:
        await person.register()
        room_id = await person.create_room(name="Pond")
        await person.send(room_id, "before")
        await person.sync()
        yield person, room_id


async def lose(person: Person, room_id: str) -> list[str]:
    """Say and hear what will be lost; long enough for the data directory to hear of it."""
    said = [await person.send(room_id, f"lost {n}", f"lost.{n}") for n in range(5)]
    await person.sync()
    assert set(said) <= person.seen[room_id]
    return said


async def told(person: Person) -> Json:
    """The next answer that says something of rooms."""
    for _ in range(20):
        answer = await person.sync(5)
        if "rooms" in answer:
            return answer
    raise AssertionError("nothing was told")


def refused(server: WholeServer, why: str) -> None:
    """`walden up` ends with 1, says why, and names the command; nothing of it runs on."""
    done = server.walden("up")
    assert done.returncode == 1, done.stderr
    assert why in done.stderr and "`walden recover`" in done.stderr, done.stderr
    assert server.processes() == []


def recovered(server: WholeServer, *options: str) -> str:
    """`walden recover`; what it printed."""
    done = server.walden("recover", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def brought_back(server: WholeServer, person: Person, room_id: str, lost: list[str]) -> Json:
    """Who comes from the lost time is told the restored present once, and talks on, under a transaction id of that time too."""
    answer = await told(person)
    room = answer["rooms"]["join"][room_id]
    assert room["timeline"]["limited"] is True
    events = room["state"]["events"] + room["timeline"]["events"]
    assert {"m.room.create", "m.room.name"} <= {event["type"] for event in events}
    bodies = [event["content"].get("body") for event in room["timeline"]["events"]]
    assert "before" in bodies and not any(str(body).startswith("lost") for body in bodies)
    assert await person.send(room_id, "new", "lost.0") not in lost
    after = await told(person)
    assert [e["content"]["body"] for e in after["rooms"]["join"][room_id]["timeline"]["events"]] == ["new"]
    assert "rooms" not in await person.sync()
    await asyncio.to_thread(server.rest)
    assert await asyncio.to_thread(differences, server.settings.dsn()) == {}
    return answer


def slots(cluster: Cluster) -> dict[str, list[str]]:
    """Durable slots by database."""
    found: dict[str, list[str]] = {}
    for name, database in cluster.execute(
        "select slot_name, database from pg_replication_slots where not temporary order by slot_name"
    ):
        found.setdefault(str(database), []).append(str(name))
    return found


async def test_a_snapshot_and_a_bare_backup_started_as_they_are_are_refused_until_recovered(tmp_path: Path) -> None:
    with ArchivedCluster(18) as cluster, contextlib.ExitStack() as stack:
        cluster.execute("create database walden")
        cluster.execute("create database other")
        cluster.execute("select pg_create_logical_replication_slot('of_somebody_else', 'pgoutput')", "other")
        server = stack.enter_context(served(WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=cluster.dsn("walden"))))
        await asyncio.to_thread(server.start)
        async with somebody(server) as (person, room_id):
            await asyncio.to_thread(server.stop)
            # What a disk snapshot holds: the files as a power cut would leave them.
            cluster.kill()
            snapshot = cluster.root / "snapshot"
            cluster.copy(cluster.data, snapshot)
            cluster.start()
            # After a crash nothing is refused.
            await asyncio.to_thread(server.start)
            lost = await lose(person, room_id)
            await asyncio.to_thread(server.stop)
            cluster.stop()
            cluster.replace_data(snapshot)
            cluster.start()
            await asyncio.to_thread(refused, server, "behind what this installation has seen")
            kept = slots(cluster)
            said = await asyncio.to_thread(recovered, server)
            assert re.search(r"give up \d+ positions of shard 0", said)
            assert all(f"dropped replication slot {name}" in said for name in kept["walden"])
            assert slots(cluster) == kept
            await asyncio.to_thread(server.start)
            await brought_back(server, person, room_id, lost)

            # A base backup without a recovery target, on a machine that has never seen it.
            backup = await asyncio.to_thread(cluster.base_backup)
            await lose(person, room_id)
            await asyncio.to_thread(server.stop)
            cluster.stop()
            cluster.replace_data(backup)
            cluster.start()
            shutil.rmtree(tmp_path / "d" / "seen")
            await asyncio.to_thread(refused, server, "all its replication slots are missing")
            assert "began epoch" in await asyncio.to_thread(recovered, server)
            await asyncio.to_thread(server.start)
            # The new epoch cannot know how far the other went, but that its token is ahead of where they parted.
            answer = await told(person)
            assert answer["rooms"]["join"][room_id]["timeline"]["limited"] is True
            await person.send(room_id, "on")
            assert room_id in (await told(person))["rooms"]["join"]


async def test_dumps_are_restored_elsewhere_and_side_by_side(tmp_path: Path) -> None:
    with Cluster(18, SMALL) as here, Cluster(18, SMALL) as there, contextlib.ExitStack() as stack:
        here.execute("create database walden")
        server = stack.enter_context(served(WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=here.dsn("walden"))))
        await asyncio.to_thread(server.start)
        file = there.root / "dump"
        async with somebody(server) as (person, room_id):
            await asyncio.to_thread(dump, here, here.root / "dump")
            lost = await lose(person, room_id)
            await asyncio.to_thread(server.stop)
            shutil.copy(here.root / "dump", file)
            file.chmod(0o644)
            # Two restores of one dump in one cluster, each with its own copy of the key.
            copies = []
            for name in ("one", "two"):
                await asyncio.to_thread(load_dump, there, file, name)
                copy = stack.enter_context(
                    served(
                        WholeServer(tmp_path / name, WALDEN_DATABASE_DSN=there.dsn(name), WALDEN_CLIENT_PROCESSES="1")
                    )
                )
                copy.data_dir.mkdir()
                shutil.copy(tmp_path / "d" / "signing.key", copy.data_dir / "signing.key")
                copies.append(copy)
            shutil.copytree(tmp_path / "d" / "seen", tmp_path / "one" / "seen")
            first, second = copies
            await asyncio.to_thread(refused, first, "dump")
            said = await asyncio.to_thread(recovered, first)
            assert "give up 5 positions" in said and "made login" in said
            assert not there.execute("select from pg_replication_slots where database = 'two'")
            await asyncio.to_thread(first.start)
            person.url = first.url
            await brought_back(first, person, room_id, lost)

            before = slots(there)["one"]
            await asyncio.to_thread(refused, second, "dump")
            await asyncio.to_thread(recovered, second)
            await asyncio.to_thread(second.start)
            assert slots(there)["one"] == before and len(slots(there)["two"]) == 2
            async with Person(second.url) as other:
                await other.register()
                await other.join(room_id)
                await other.send(room_id, "in the second")
                await person.send(room_id, "in the first")
                mine = [
                    e["content"].get("body")
                    for e in (await other.sync())["rooms"]["join"][room_id]["timeline"]["events"]
                ]
                assert "in the second" in mine and "in the first" not in mine
            await person.sync()
            assert [e["content"]["body"] for e in person.timelines[room_id][-1:]] == ["in the first"]
            # Recovering one again, because somebody says so, leaves the other running.
            await asyncio.to_thread(second.stop)
            assert "began epoch" in await asyncio.to_thread(recovered, second, "--anyway")
            await person.send(room_id, "undisturbed")
            await asyncio.to_thread(first.rest)
            await asyncio.to_thread(second.start)
            await asyncio.to_thread(second.rest)


async def test_a_planned_move_keeps_tokens_and_a_lossy_one_may_not_be_called_planned(tmp_path: Path) -> None:
    with Cluster(18, SMALL) as here, Cluster(18, SMALL) as there, contextlib.ExitStack() as stack:
        here.execute("create database walden")
        server = stack.enter_context(served(WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=here.dsn("walden"))))
        await asyncio.to_thread(server.start)
        async with somebody(server) as (person, room_id):
            await asyncio.to_thread(dump, here, here.root / "early")
            last = await person.send(room_id, "the last", "kept.1")
            await person.sync()
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(dump, here, here.root / "late")
            for name in ("early", "late"):
                shutil.copy(here.root / name, there.root / name)
                (there.root / name).chmod(0o644)
                await asyncio.to_thread(load_dump, there, there.root / name, name)
            server.environ["WALDEN_DATABASE_DSN"] = there.dsn("early")
            lossy = await asyncio.to_thread(server.walden, "recover", "--planned")
            assert lossy.returncode == 1 and "without --planned" in lossy.stderr
            server.environ["WALDEN_DATABASE_DSN"] = there.dsn("late")
            await asyncio.to_thread(refused, server, "dump")
            await asyncio.to_thread(recovered, server, "--planned")
            await asyncio.to_thread(server.start)
            assert "rooms" not in await person.sync()
            assert await person.send(room_id, "the last", "kept.1") == last
            await person.send(room_id, "after")
            answer = await told(person)
            assert answer["rooms"]["join"][room_id]["timeline"]["limited"] is False
            assert answer["rooms"]["join"][room_id]["state"]["events"] == []
            await asyncio.to_thread(server.rest)

            # Another key is another server, in every command.
            await asyncio.to_thread(server.stop)
            key = tmp_path / "d" / "signing.key"
            ours = key.read_bytes()
            key.write_text(f"ed25519 a_other {'A' * 43}\n")
            for command in (("up",), ("recover",), ("roomserver",), ("init",)):
                done = await asyncio.to_thread(server.walden, *command)
                assert done.returncode == 1 and "signed with" in done.stderr, done.stderr
            key.write_bytes(ours)


async def test_a_failover_is_never_refused_whatever_the_standby_had_not_received(tmp_path: Path) -> None:
    with ArchivedCluster(18) as primary, contextlib.ExitStack() as stack:
        primary.execute("create database walden")
        server = stack.enter_context(served(WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=primary.dsn("walden"))))
        await asyncio.to_thread(server.start)
        async with somebody(server) as (person, room_id):
            # What a standby is: a base backup that replays what it is sent, until it is promoted. This one was cut off.
            standby = await asyncio.to_thread(primary.base_backup)
            lost = await lose(person, room_id)
            await asyncio.sleep(2.5)
            primary.kill()
            primary.replace_data(standby)
            (primary.data / "standby.signal").touch()
            primary.own(primary.data / "standby.signal")
            primary.start()
            primary.execute("select pg_promote()")
            primary.wait_promoted()
            # Walden has been running all the time.
            await person.insist("GET", "account/whoami")
            await brought_back(server, person, room_id, lost)
            (epoch,) = server.rows("select reason, timeline from eventlog.epochs order by ordinal desc limit 1")
            assert epoch == {"reason": "failover", "timeline": 2}
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            assert "nothing to recover" not in server.log.read_text()
