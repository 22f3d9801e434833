"""What a client has gathered from many small syncs is what a fresh client is told at once, whatever happened in between."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from sync_world import Client, World, settings_of, sync_process, user, world

from matrix.errors import MatrixError
from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS
from matrix.visibility import user_may_see

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

USERS = [user(name) for name in ("alice", "bob", "carol", "dave")]


class Actions:
    """Random things that users do, some of which are refused."""

    def __init__(self, here: World, rooms: list[str], dice: random.Random) -> None:
        self.here, self.rooms, self.dice = here, rooms, dice
        self.sent: list[tuple[str, str]] = []

    async def act(self) -> None:
        here, dice = self.here, self.dice
        room, actor, other = dice.choice(self.rooms), dice.choice(USERS), dice.choice(USERS)
        choices = ["say"] * 6 + ["join", "join", "leave", "kick", "ban", "unban", "invite", "topic", "name", "profile"]
        action = dice.choice([*choices, "receipt", "receipt", "private", "tag", "global", "redact", "burst"])
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
                case "global":
                    await here.account_data(actor, "org.example", {"n": dice.random()})
                case "redact" if self.sent:
                    room, event_id = dice.choice(self.sent)
                    await here.event(room, actor, "m.room.redaction", {}, redacts=event_id)
        except MatrixError as error:
            assert error.status in (400, 403), error


def known(client: Client) -> dict[str, Any]:
    """What a client knows of the rooms it is in, and of its account."""
    joined = {
        room_id: (model.state, model.account_data, model.receipts, model.unread, model.summary["m.joined_member_count"])
        for room_id, model in client.rooms.items()
        if model.section == "join"
    }
    invited = {room_id for room_id, model in client.rooms.items() if model.section == "invite"}
    return {"joined": joined, "invited": invited, "account_data": client.account_data}


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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_accumulated_syncs_equal_a_fresh_one(provisioned: str, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    settings = settings_of(provisioned, tmp_path)
    async with world(settings) as here, sync_process(settings) as elsewhere:
        rooms = [
            await here.room(USERS[n % 2], visibility=visibility)
            for n, visibility in enumerate(["shared", "joined", "invited", "world_readable"])
        ]
        actions = Actions(here, rooms, dice)
        clients = [
            Client(service, user_id, f"{n}{after}{limit}", {"room": {"timeline": {"limit": limit}}}, after)
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
                    await client.sync()
                    for room_id, model in client.rooms.items():
                        if model.section == "join" and not model.gap:
                            assert len(set(model.timeline)) == len(model.timeline), "an event twice"
                            seen[client.device_id + client.user_id][room_id] = list(model.timeline)
        for client in clients:
            await client.settle()
        for user_id in USERS:
            visible = allowed(provisioned, user_id)
            for client in clients:
                if client.user_id == user_id:
                    told = {event_id: event["unsigned"]["membership"] for event_id, event in client.received.items()}
                    assert told == {event_id: visible.get(event_id) for event_id in told}, (client.device_id, seed)
            fresh: dict[bool, dict[str, Any]] = {}
            async with sync_process(settings) as service:
                for after in (False, True):
                    newcomer = Client(service, user_id, "NEW", state_after=after)
                    await newcomer.sync()
                    fresh[after] = known(newcomer)
            assert fresh[False] == fresh[True]
            for client in clients:
                if client.user_id == user_id:
                    assert known(client) == fresh[False], (client.device_id, seed)
