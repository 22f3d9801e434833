"""Clients of an abandoned future are brought to the restored present: no error, no gap, no loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sync_world import Client, World, caught_up, settings_of, user, world

from eventlog.seen import Epochs
from eventlog.tokens import SyncToken
from readers.sync.position import place_of

ALICE, BOB = user("alice"), user("bob")


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(settings_of(provisioned, tmp_path)) as made:
        yield made


def fork(dsn: str, epoch: str, at: int) -> None:
    """What a recovery leaves behind, as far as readers can see."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "insert into eventlog.epochs (epoch, parent, forked_at, system_identifier, timeline, reason)"
            " select %s, epoch, %s, system_identifier, timeline, 'recover' from eventlog.epochs order by ordinal desc limit 1",
            [epoch, [at]],
        )
        connection.execute("update eventlog.positions set epoch = %s", [epoch])


@pytest.mark.postgres
async def test_a_client_of_the_lost_time_is_told_rooms_whole_and_limited_whatever_they_hold(
    here: World, provisioned: str
) -> None:
    room = await here.room(ALICE, name="Pond")
    left = await here.room(ALICE)
    await here.join(left, BOB)
    await here.join(room, BOB)
    await here.leave(left, BOB)
    await here.account_data(BOB, "m.direct", {"a": 1})
    await here.account_data(BOB, "test.room", {"b": 2}, room)
    client = Client(here.sync, BOB)
    await client.settle()
    epoch, position = client.since.split("_")[1:]
    fork(provisioned, "feed", int(position))
    await here.say(room, ALICE, "afterwards")
    await asyncio.sleep(0.1)
    fresh = Client(here.sync, BOB)
    await fresh.sync(since=f"w1_{epoch}_{int(position) + 3}")
    told = fresh.room(room)
    assert told["timeline"]["limited"] is True
    assert fresh.rooms[room].state == client.rooms[room].state
    assert fresh.bodies(room) == ["afterwards"]
    # It may have joined this room again in the time that was lost.
    assert room in fresh.last["rooms"]["join"] and left in fresh.last["rooms"]["leave"]
    assert fresh.last["rooms"]["leave"][left]["timeline"]["limited"] is True
    # What it was told of account data may be of the lost time: all of it is told, push rules included.
    assert fresh.account_data["m.direct"] == {"a": 1}
    assert "m.push_rules" in fresh.account_data
    assert fresh.rooms[room].account_data == {"test.room": {"b": 2}}
    assert fresh.since == f"w1_feed_{int(position) + 1}"
    assert "rooms" not in await fresh.sync()


@pytest.mark.postgres
async def test_a_token_from_before_the_fork_goes_on_as_if_nothing_had_been(here: World, provisioned: str) -> None:
    room = await here.room(ALICE)
    client = Client(here.sync, ALICE)
    await client.settle()
    fork(provisioned, "feed", int(client.since.split("_")[2]))
    await here.say(room, ALICE, "afterwards")
    await asyncio.sleep(0.1)
    await client.sync()
    assert client.bodies(room) == ["afterwards"]
    assert client.room(room)["timeline"]["limited"] is False
    assert "account_data" not in client.last


@pytest.mark.postgres
async def test_a_token_of_the_lost_time_acknowledges_what_lay_before_the_fork_and_nothing_after(
    here: World, provisioned: str
) -> None:
    await here.room(BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    await here.to_devices(ALICE, {BOB: {"DEVICE": {"n": 1}}})
    await client.settle()
    assert client.messages == [1]
    await here.to_devices(ALICE, {BOB: {"DEVICE": {"n": 2}}})
    await caught_up(here.sync)
    epoch, position = here.sync.token.split("_")[1:]
    arrived: list[tuple[str, str, tuple[int, ...]]] = []
    here.sync.received = lambda user_id, device_id, upto: arrived.append((user_id, device_id, tuple(upto)))
    fork(provisioned, "feed", int(position))
    # It takes a position that the lost time had given to something else.
    await here.to_devices(ALICE, {BOB: {"DEVICE": {"n": 3}}})
    # By its token the client has had both messages, and five positions of the lost time.
    client.messages.clear()
    await client.sync(since=f"w1_{epoch}_{int(position) + 5}")
    await client.settle()
    assert client.messages == [3]
    assert arrived[0] == (BOB, "DEVICE", (int(position),))


@pytest.mark.postgres
async def test_a_client_that_the_device_knows_members_of_is_told_them_again(here: World, provisioned: str) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    await here.say(room, ALICE, "before")
    lazy = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
    client = Client(here.sync, BOB, filter=lazy)
    await client.settle()
    await client.sync()
    epoch, position = client.since.split("_")[1:]
    fork(provisioned, "feed", int(position))
    await here.say(room, ALICE, "afterwards")
    await asyncio.sleep(0.1)
    await client.sync(since=f"w1_{epoch}_{int(position) + 1}")
    members = {e["state_key"] for e in client.room(room)["state"]["events"] if e["type"] == "m.room.member"}
    assert members == {ALICE, BOB}


def test_epochs_beside_ours_count_from_where_they_parted() -> None:
    # a ── b (at 10) ── d (at 14): ours. c parted from a at 12 and is lost, and so is e, which parted from c at 13.
    epochs: Epochs = {"d": ("b", (14,)), "b": ("a", (10,)), "e": ("c", (13,)), "c": ("a", (12,)), "a": (None, ())}

    def place(epoch: str, position: int) -> tuple[int, bool] | None:
        found = place_of(SyncToken(epoch, (position,)), "d", (20,), epochs)
        return None if found.positions is None else (found.positions[0], found.anew)

    assert place("d", 17) == (17, False)
    assert place("d", 21) == (20, True)
    assert place("b", 14) == (14, False)
    assert place("b", 15) == (14, True)
    assert place("a", 9) == (9, False)
    assert place("a", 12) == (10, True)
    assert place("c", 12) == (10, True)
    assert place("e", 16) == (10, True)
    assert place("nobody", 3) is None


@st.composite
def histories(draw: st.DrawFn) -> tuple[Epochs, list[str]]:
    """Epochs by id, each forked from one before, and their order of beginning."""
    names = [f"e{n}" for n in range(draw(st.integers(1, 6)))]
    epochs: Epochs = {names[0]: (None, ())}
    for number, name in enumerate(names[1:], 1):
        parent = draw(st.sampled_from(names[:number]))
        begun = epochs[parent][1] or (0, 0)
        at = tuple(low + draw(st.integers(0, 5)) for low in begun)
        epochs[name] = (parent, at)
    return epochs, names


@given(histories(), st.data())
def test_a_place_is_never_ahead_of_what_both_histories_share(
    made: tuple[Epochs, list[str]], data: st.DataObject
) -> None:
    epochs, names = made
    current, other = names[-1], data.draw(st.sampled_from(names))
    begun = epochs[other][1] or (0, 0)
    positions = tuple(low + data.draw(st.integers(0, 9)) for low in begun)
    here = place_of(SyncToken(other, positions), current, (99, 99), epochs)

    def entries(epoch: str, upto: tuple[int, ...]) -> list[dict[int, str]]:
        # What each position of a shard says, by the epoch that gave it.
        parent, fork_at = epochs[epoch]
        below = [{}, {}] if parent is None else entries(parent, fork_at)
        begin = fork_at or (0, 0)
        return [
            known | dict.fromkeys(range(low + 1, high + 1), epoch)
            for known, low, high in zip(below, begin, upto, strict=True)
        ]

    ours, theirs = entries(current, (99, 99)), entries(other, positions)
    assert here.positions is not None
    for shard, position in enumerate(here.positions):
        shared = {n for n, epoch in theirs[shard].items() if ours[shard].get(n) == epoch}
        # Everything up to the place is shared, and nothing beyond it.
        assert shared == set(range(1, position + 1))
    assert here.anew == any(len(theirs[shard]) > here.positions[shard] for shard in (0, 1))
