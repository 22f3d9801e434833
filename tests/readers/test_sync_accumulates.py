"""What a client has gathered from many small syncs is what a fresh client is told at once, whatever happened in between."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from sync_world import Client, World, caught_up, settings_of, sync_process, user, world

from matrix.errors import MatrixError
from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS
from matrix.visibility import user_may_see
from writer.to_device import Arrivals

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

DEVICES = [f"{n}{after}{limit}" for n in (0, 1) for after, limit in ((False, 5), (True, 20))]
USERS = [user(name) for name in ("alice", "bob", "carol", "dave")]


class Actions:
    """Random things that users do, some of which are refused."""

    def __init__(self, here: World, rooms: list[str], dice: random.Random) -> None:
        self.here, self.rooms, self.dice = here, rooms, dice
        self.sent: list[tuple[str, str]] = []
        self.roots: list[tuple[str, str]] = []
        self.messages: dict[tuple[str, str], list[int]] = {}
        """By user and device, the numbers of what was sent to it."""

    async def act(self) -> None:
        here, dice = self.here, self.dice
        room, actor, other = dice.choice(self.rooms), dice.choice(USERS), dice.choice(USERS)
        choices = ["say"] * 6 + ["join", "join", "leave", "kick", "ban", "unban", "invite", "topic", "name", "profile"]
        choices += ["receipt", "receipt", "private", "tag", "global", "redact", "burst"]
        choices += ["thread", "thread", "read thread", "knock", "knock", "join rule", "forget", "presence", "typing"]
        choices += ["keys", "keys", "message", "message", "messages"]
        action = dice.choice([*choices, *["ignore"] * (dice.random() < 0.3)])
        try:
            match action:
                case "say":
                    self.sent.append((room, (await here.say(room, actor, f"{dice.random()}")).event_id))
                case "burst":
                    for _ in range(15):
                        self.sent.append((room, (await here.say(room, actor, "burst")).event_id))
                case "join":
                    await here.join(room, actor)
                case "leave":
                    await here.leave(room, actor)
                case "kick" | "unban":
                    await here.member(room, actor, other, "leave")
                case "ban":
                    await here.member(room, actor, other, "ban")
                case "invite":
                    await here.member(room, actor, other, "invite")
                case "topic" | "name":
                    content = {action: f"{dice.random()}"}
                    await here.event(room, actor, f"m.room.{action}", content, state_key="")
                case "profile":
                    await here.member(room, actor, actor, "join", displayname=f"{dice.random()}")
                case "receipt" | "private" if self.sent:
                    room, event_id = dice.choice(self.sent)
                    kind = "m.read" if action == "receipt" else "m.read.private"
                    await here.receipt(room, actor, event_id, kind, dice.choice(["", "", "main"]))
                case "tag":
                    await here.account_data(actor, "m.tag", {"tags": {f"u.{dice.random()}": {}}}, room)
                case "thread" if self.sent:
                    room, root = dice.choice(self.roots or self.sent)
                    relates = {"rel_type": "m.thread", "event_id": root}
                    content = {"msgtype": "m.text", "body": "reply", "m.relates_to": relates}
                    self.sent.append((room, (await here.event(room, actor, "m.room.message", content)).event_id))
                    self.roots = [*self.roots, (room, root)][-5:]
                case "read thread" if self.roots:
                    room, root = dice.choice(self.roots)
                    event_id = dice.choice([event_id for one, event_id in self.sent if one == room])
                    await here.receipt(room, actor, event_id, "m.read", root)
                case "knock":
                    await here.member(room, actor, actor, "knock")
                case "join rule":
                    rule = dice.choice(["public", "public", "knock"])
                    await here.event(room, actor, "m.room.join_rules", {"join_rule": rule}, state_key="")
                case "forget":
                    await here.forget(room, actor)
                case "presence":
                    presence = dice.choice(["online", "unavailable", "offline"])
                    await here.presence(actor, presence, f"{dice.random()}")
                case "typing":
                    member = (await here.writer.view(room, [("m.room.member", actor)])).state.get(
                        ("m.room.member", actor)
                    )
                    if member is not None and member.content["membership"] == "join":
                        await here.writer.typing(room, actor, dice.random() < 0.7, 3_600_000)
                case "keys":
                    key = None if dice.random() < 0.3 else {"n": f"{dice.random()}"}
                    await here.device_keys(actor, dice.choice("AB"), key)
                case "message" | "messages":
                    for number in range(1 if action == "message" else 60):
                        device = dice.choice(DEVICES)
                        sent = self.messages.setdefault((other, device), [])
                        await here.to_devices(actor, {other: {device: {"n": (number := len(sent))}}})
                        sent.append(number)
                case "ignore":
                    ignored = {one: {} for one in dice.sample(USERS, dice.choice([0, 1, 2])) if one != actor}
                    await here.account_data(actor, "m.ignored_user_list", {"ignored_users": ignored})
                case "global":
                    await here.account_data(actor, "org.example", {"n": dice.random()})
                case "redact" if self.sent:
                    room, event_id = dice.choice(self.sent)
                    await here.event(room, actor, "m.room.redaction", {}, redacts=event_id)
        except MatrixError as error:
            assert error.status in (400, 403), error


async def sync(client: Client) -> None:
    """A sync of a client that begins afresh when other users than before are ignored.

    "The client should either hide previous content sent by the newly ignored user or perform a new /sync with no previous token."
    """
    before = client.account_data.get("m.ignored_user_list") if client.since else None
    known_before = bool(client.since)
    await client.sync()
    if known_before and client.account_data.get("m.ignored_user_list") != before:
        await begin_afresh(client)


async def begin_afresh(client: Client) -> None:
    """Forgets everything, and asks for it."""
    client.since = ""
    client.began_afresh = True
    client.rooms.clear()
    client.account_data.clear()
    client.presence.clear()
    client.keys.clear()
    client.messages.clear()
    await client.sync()


def known(client: Client, neighbours: set[str]) -> dict[str, Any]:
    """What a client knows of the rooms it is in, and of its account and those it shares rooms with."""
    joined = {
        room_id: {
            "state": model.state,
            "account data": model.account_data,
            "receipts": model.receipts,
            "unread": (model.unread, model.unread_threads),
            "summary": model.summary,
            "typing": sorted(model.typing),
        }
        for room_id, model in client.rooms.items()
        if model.section == "join"
    }
    return {
        "joined": joined,
        "invited": {room_id for room_id, model in client.rooms.items() if model.section == "invite"},
        "knocked": {room_id for room_id, model in client.rooms.items() if model.section == "knock"},
        "account_data": client.account_data,
        "keys": client.keys,
        "presence": {who: how for who, how in client.presence.items() if who in neighbours and how[0] != "offline"},
    }


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two things known differ, each with what is known by one and the other."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys(), key=str)
        return [found for key in keys for found in differences(one.get(key), other.get(key), f"{path}/{key}")]
    return [] if one == other else [f"{path}: {one} {other}"]


def neighbours_of(dsn: str, user_id: str) -> set[str]:
    """Those who share a room with a user."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "select distinct o.user_id from roomserver.memberships m join roomserver.memberships o on o.room = m.room"
            " where m.user_id = %s and m.membership = 'j' and o.membership = 'j'",
            [user_id],
        ).fetchall()
    return {row[0] for row in rows}


def look(dsn: str, user_id: str, users: Iterable[str] | None) -> dict[str, int]:
    """When the devices of users changed last, 0 for never; of all who share a room with a user, or of some."""
    wanted = neighbours_of(dsn, user_id) | {user_id} if users is None else set(users)
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "select user_id, position from roomserver.device_lists where user_id = any(%s)", [list(wanted)]
        ).fetchall()
    return dict.fromkeys(wanted, 0) | {row[0]: row[1] for row in rows}


def allowed(dsn: str, user_id: str) -> dict[str, str]:
    """The events a user may see, with their membership at each, judged from the state over time one event at a time."""
    found: dict[str, str] = {}
    words = {"j": "join", "i": "invite", "l": "leave", "b": "ban", "k": "knock"}
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "select o.position, o.room, e.event_id, e.json, r.room_version from eventlog.outputs o"
            " join eventlog.events e on e.id = o.entry join roomserver.rooms r on r.nid = o.room"
            " where o.timeline is not null and o.verdict = 'a' order by o.position"
        ).fetchall()
        for position, room, event_id, pdu, version in rows:

            def standing(key: tuple[str, str], at: int, room: int = room) -> tuple[str | None, str | None]:
                row = connection.execute(
                    "select s.membership::text, e.json from roomserver.state s join eventlog.events e on e.id = s.entry"
                    " where s.room = %s and s.line = 0 and s.type = %s and s.state_key = %s and valid_from <= %s and valid_to > %s",
                    [room, *key, at, at],
                ).fetchone()
                return (None, None) if row is None else row

            own = ("m.room.member", user_id)
            before = words[standing(own, position - 1)[0] or "l"]
            setting = standing(("m.room.history_visibility", ""), position - 1)[1]
            visibility = "shared" if setting is None else orjson.loads(setting)["content"]["history_visibility"]
            later = connection.execute(
                "select exists (select from roomserver.state where room = %s and line = 0 and type = %s and state_key = %s"
                " and membership = 'j' and valid_to > %s)",
                [room, *own, position],
            ).fetchone()
            assert later is not None
            event = Event.from_pdu(orjson.loads(pdu), ROOM_VERSIONS[version], event_id)
            rejected = event.state_key == user_id and before in ("invite", "knock")
            if rejected or user_may_see(
                event, user_id, visibility=visibility, membership=before, joined_since=later[0]
            ):
                found[event_id] = words[standing(own, position)[0] or "l"]
    return found


def filter_of(limit: int, threads: bool) -> dict[str, Any]:
    """Timelines of a length, and counts by thread or for whole rooms."""
    return {"room": {"timeline": {"limit": limit, "unread_thread_notifications": threads}}}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_accumulated_syncs_equal_a_fresh_one(provisioned: str, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    settings = settings_of(provisioned, tmp_path)
    async with world(settings) as here, sync_process(settings) as elsewhere, Arrivals(here.writer) as arrivals:
        here.sync.received = elsewhere.received = arrivals.received
        rooms = [
            await here.room(USERS[n % 2], visibility=visibility)
            for n, visibility in enumerate(["shared", "joined", "invited", "world_readable"])
        ]
        actions = Actions(here, rooms, dice)
        clients = [
            Client(
                service, user_id, f"{n}{after}{limit}", filter_of(limit, after), after, look=partial(look, provisioned)
            )
            for n, service in enumerate([here.sync, elsewhere])
            for user_id in USERS
            for after, limit in ((False, 5), (True, 20))
        ]
        seen: dict[str, dict[str, list[str]]] = {client.device_id + client.user_id: {} for client in clients}
        for client in clients:
            await client.sync()
        for _ in range(70):
            for _ in range(dice.choice([1, 1, 3, 8])):
                await actions.act()
            for client in clients:
                if dice.random() < 0.3:
                    if dice.random() < 0.2:
                        # Another process answers: it has to know the token, and may not have come as far.
                        client.service = elsewhere if client.service is here.sync else here.sync
                    await sync(client)
                    for room_id, model in client.rooms.items():
                        if model.section == "join" and not model.gap:
                            assert len(set(model.timeline)) == len(model.timeline), "an event twice"
                            seen[client.device_id + client.user_id][room_id] = list(model.timeline)
        # Nobody waits for what is said of typing; it has been judged when this has.
        await here.account_data(USERS[0], "org.example", {"n": "last"})
        for client in clients:
            await caught_up(client.service)
            await sync(client)
            await client.settle()
            # What arrived before a client began afresh may be told once more, or not.
            sent = actions.messages.get((client.user_id, client.device_id), [])
            told_from = client.messages[0] if client.messages else len(sent)
            assert client.messages == sent[told_from:], (client.device_id, seed)
            assert told_from == 0 or client.began_afresh, (client.device_id, seed)
        for user_id in USERS:
            visible = allowed(provisioned, user_id)
            for client in clients:
                if client.user_id == user_id:
                    told = {event_id: event["unsigned"]["membership"] for event_id, event in client.received.items()}
                    assert told == {event_id: visible.get(event_id) for event_id in told}, (client.device_id, seed)
            neighbours = neighbours_of(provisioned, user_id)
            async with sync_process(settings) as service:
                for after in (False, True):
                    newcomer = Client(
                        service, user_id, "NEW", filter_of(10, after), after, look=partial(look, provisioned)
                    )
                    await newcomer.sync()
                    fresh = known(newcomer, neighbours)
                    for client in clients:
                        if client.user_id == user_id and client.state_after == after:
                            assert differences(known(client, neighbours), fresh) == [], (client.device_id, seed)
