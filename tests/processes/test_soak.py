"""An hour's traffic squeezed into minutes: every table keeps to the bound that docs/tables.md gives it, and none is without one."""

from __future__ import annotations

import asyncio
import collections
import io
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from people import Person, Refused, segment
from PIL import Image
from psycopg import AsyncConnection
from tables_page import bounds, value
from whole_server import WholeServer

from readers import maintenance
from readers.notifications.pushing import MOST_WAITING
from readers.notifications.pushing import SQL as PUSHES
from readers.retention.rounds import go_round

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(1800)]

REQUESTS = int(os.environ.get("WALDEN_SOAK_REQUESTS", "3600"))
PEOPLE, ROOMS = 12, 6

# Rows of these are updated for every batch: should their dead versions not be reused, they grow.
UPDATED_IN_PLACE = ("eventlog.positions", "eventlog.tips", "roomserver.heads")
MOST_BYTES = 2 << 20
MOST_BEHIND = 64 << 20


class Hour:
    """People who do what people do in an hour, as fast as they can."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.url = url
        self.chance = chance
        self.people: list[Person] = []
        self.rooms: list[str] = []
        self.said: dict[str, list[str]] = {}
        self.requests = self.devices = 0
        self.done: collections.Counter[str] = collections.Counter()

    async def begin(self) -> None:
        for _ in range(PEOPLE):
            self.people.append(await Person(self.url).register())
            self.devices += 1
        for n in range(ROOMS):
            await self.room(self.people[n % PEOPLE])

    async def room(self, person: Person) -> str:
        levels = {"power_level_content_override": {"events": {"test.state": 0}, "redact": 0}}
        room_id = await person.create_room(name="a room", **levels)
        self.rooms.append(room_id)
        self.said[room_id] = [await person.send(room_id, "first")]
        self.requests += 2
        for other in self.people:
            if other is not person:
                await other.join(room_id)
                self.requests += 1
        return room_id

    async def live(self) -> None:
        async def one(person: Person) -> None:
            while self.requests < REQUESTS:
                act = self.chance.choices(ACTS, [weight for _, weight in WEIGHTED])[0]
                self.requests += 1
                self.done[act.__name__] += 1
                try:
                    await act(self, person, self.chance.choice(self.rooms[:ROOMS]))
                except Refused as error:
                    self.done[f"{act.__name__}: {error.status}"] += 1

        await asyncio.gather(*(one(person) for person in self.people))

    async def close(self) -> None:
        for person in self.people:
            await person.__aexit__(None, None, None)

    def some_event(self, room_id: str) -> str:
        return self.chance.choice(self.said[room_id][-50:])

    async def say(self, person: Person, room_id: str) -> None:
        self.said[room_id].append(await person.send(room_id, f"{person.name} says {self.requests}"))

    async def relate(self, person: Person, room_id: str) -> None:
        relation = self.chance.choice(("m.annotation", "m.thread", "m.replace"))
        content: dict[str, Any] = {
            "body": "x", "msgtype": "m.text", "m.new_content": {"body": "y", "msgtype": "m.text"},
            "m.relates_to": {"rel_type": relation, "event_id": self.some_event(room_id), "key": str(self.requests)},
        }  # fmt: skip
        kind = "m.reaction" if relation == "m.annotation" else "m.room.message"
        await person.call("PUT", f"rooms/{segment(room_id)}/send/{kind}/r{self.requests}", content)

    async def redact(self, person: Person, room_id: str) -> None:
        event_id = self.chance.choice((self.some_event(room_id), f"$unheard-of-{self.requests}"))
        await person.call("PUT", f"rooms/{segment(room_id)}/redact/{segment(event_id)}/x{self.requests}", {})

    async def read(self, person: Person, room_id: str) -> None:
        await person.call("POST", f"rooms/{segment(room_id)}/receipt/m.read/{segment(self.some_event(room_id))}", {})

    async def mark(self, person: Person, room_id: str) -> None:
        body = {"m.fully_read": self.some_event(room_id), "m.read.private": self.some_event(room_id)}
        await person.call("POST", f"rooms/{segment(room_id)}/read_markers", body)

    async def type(self, person: Person, room_id: str) -> None:
        path = f"rooms/{segment(room_id)}/typing/{segment(person.user_id)}"
        await person.call("PUT", path, {"typing": True, "timeout": 2000})

    async def change(self, person: Person, room_id: str) -> None:
        await person.set_state(room_id, "test.state", {"n": self.requests}, person.user_id)

    async def come_and_go(self, person: Person, room_id: str) -> None:
        await person.leave(room_id)
        await person.join(room_id)
        self.requests += 1

    async def rename(self, person: Person, _: str) -> None:
        path = f"profile/{segment(person.user_id)}/displayname"
        await person.call("PUT", path, {"displayname": f"Name {self.requests}"})
        # One state event in each room.
        self.requests += len(self.rooms)

    async def keep(self, person: Person, _: str) -> None:
        await person.call("PUT", f"user/{segment(person.user_id)}/account_data/test.counter", {"n": self.requests})

    async def tag(self, person: Person, room_id: str) -> None:
        path = f"user/{segment(person.user_id)}/rooms/{segment(room_id)}/tags/u.{self.requests % 5}"
        await person.call("PUT", path, {"order": 0.5})

    async def choose(self, person: Person, _: str) -> None:
        await person.call(
            "POST", f"user/{segment(person.user_id)}/filter", {"room": {"timeline": {"limit": self.requests}}}
        )

    async def report(self, person: Person, room_id: str) -> None:
        path = f"rooms/{segment(room_id)}/report/{segment(self.some_event(room_id))}"
        await person.call("POST", path, {"reason": "spam"})

    async def log_in(self, person: Person, _: str) -> None:
        body = {
            "type": "m.login.password", "identifier": {"type": "m.id.user", "user": person.name},
            "password": "a fine password", "refresh_token": True,
        }  # fmt: skip
        answer = await person.call("POST", "login", body)
        self.devices += 1
        if "refresh_token" in answer:
            await person.call("POST", "refresh", {"refresh_token": answer["refresh_token"]})

    async def hesitate(self, person: Person, _: str) -> None:
        # Asks for a password and never gives it.
        status, _answer = await person.once("POST", "delete_devices", {"devices": ["NONE"]})
        assert status == 401

    async def sync(self, person: Person, _: str) -> None:
        await person.call("GET", "sync", timeout="0")

    async def want_pushes(self, person: Person, _: str) -> None:
        # To a gateway that never answers: what it is to be told waits.
        body = {
            "app_id": "org.example.app", "pushkey": f"key {self.requests % 3} of {person.name}", "kind": "http", "lang": "en",
            "app_display_name": "App", "device_display_name": "Phone", "append": self.chance.random() < 0.5,
            "data": {"url": "https://gateway.invalid/_matrix/push/v1/notify"},
        }  # fmt: skip
        await person.call("POST", "pushers/set", body)

    async def mention(self, person: Person, room_id: str) -> None:
        content = {
            "msgtype": "m.text",
            "body": "you",
            "m.mentions": {"user_ids": [self.chance.choice(self.people).user_id]},
        }
        await person.call("PUT", f"rooms/{segment(room_id)}/send/m.room.message/m{self.requests}", content)

    async def appear(self, person: Person, _: str) -> None:
        presence = self.chance.choice(("online", "unavailable"))
        body = {"presence": presence, "status_msg": f"busy with {self.requests}"}
        await person.call("PUT", f"presence/{segment(person.user_id)}/status", body)

    async def show(self, person: Person, _: str) -> None:
        await person.call("POST", f"user/{segment(person.user_id)}/openid/request_token", {})

    async def upload(self, person: Person, _: str) -> None:
        # A picture that others have uploaded as well, its thumbnail, and a URI that nothing is uploaded to.
        headers = {"authorization": f"Bearer {person.token}"}
        side = self.chance.randrange(100, 104)
        data = io.BytesIO()
        Image.new("RGB", (side, side)).save(data, "PNG")
        async with person._http.post(
            f"{self.url}/_matrix/media/v3/upload", data=data.getvalue(), headers=headers
        ) as made:
            uri = (await made.json())["content_uri"].removeprefix("mxc://")
        path = f"/_matrix/client/v1/media/thumbnail/{uri}?width=32&height=32&method=crop"
        async with person._http.get(self.url + path, headers=headers) as answer:
            assert answer.status == 200
            await answer.read()
        await person.call("POST", "/_matrix/media/v1/create")

    async def list_and_unlist(self, person: Person, room_id: str) -> None:
        # Whoever made the room may: others are refused, which is counted.
        alias = f"#room{self.requests % 4}-{self.rooms.index(room_id)}:walden.example"
        method = self.chance.choice(("PUT", "DELETE"))
        await person.call(method, f"directory/room/{segment(alias)}", {"room_id": room_id} if method == "PUT" else None)
        body = {"visibility": self.chance.choice(("public", "private"))}
        await person.call("PUT", f"directory/list/room/{segment(room_id)}", body)

    async def miss(self, person: Person, _: str) -> None:
        # A wrong password.
        status, _answer = await person.once("POST", "login", {
            "type": "m.login.password", "identifier": {"type": "m.id.user", "user": person.name}, "password": "not it",
        })  # fmt: skip
        assert status == 403


WEIGHTED: list[tuple[Callable[[Hour, Person, str], Awaitable[None]], float]] = [
    (Hour.say, 30), (Hour.relate, 8), (Hour.redact, 3), (Hour.read, 12), (Hour.mark, 4), (Hour.type, 8), (Hour.change, 4),
    (Hour.come_and_go, 2), (Hour.rename, 0.5), (Hour.keep, 4), (Hour.tag, 2), (Hour.choose, 2), (Hour.report, 1),
    (Hour.log_in, 0.5), (Hour.hesitate, 1), (Hour.sync, 6), (Hour.want_pushes, 1), (Hour.mention, 2), (Hour.appear, 4),
    (Hour.show, 1), (Hour.list_and_unlist, 1), (Hour.miss, 0.3), (Hour.upload, 0.5),
]  # fmt: skip
ACTS = [act for act, _ in WEIGHTED]


async def test_an_hours_traffic_leaves_every_table_within_its_bound(
    tmp_path: Path, figures: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with WholeServer(tmp_path / "d", WALDEN_RATE_LIMITS="false") as server:
        hour = Hour(server.url, random.Random(7))
        began = time.monotonic()
        try:
            await hour.begin()
            await hour.live()
        finally:
            await hour.close()
        seconds = time.monotonic() - began
        await asyncio.to_thread(server.rest)
        monkeypatch.setattr(maintenance, "DAYS", dict.fromkeys(maintenance.DAYS, 0))
        async with await AsyncConnection.connect(server.settings.dsn("maintenance"), autocommit=True) as connection:
            await maintenance._remove_expired(connection)
            await maintenance._count_activity(connection)
            await go_round(connection, server.settings.retention)
        async with await AsyncConnection.connect(server.settings.dsn("reader"), autocommit=True) as connection:
            await connection.execute(PUSHES["sweep"], {"most": MOST_WAITING})

        async with await AsyncConnection.connect(server.settings.dsn(), autocommit=True) as owner:
            waiting = await (
                await owner.execute("select count(*) from notifications.pushes where sent_at is null group by pusher")
            ).fetchall()
            rows: dict[str, int] = {}
            for table in bounds():
                row = await (await owner.execute(f"select count(*) from {table}")).fetchone()  # type: ignore[call-overload,unused-ignore]
                assert row is not None
                rows[table] = row[0]
            kinds = dict(
                await (await owner.execute("select kind::text, count(*) from eventlog.events group by kind")).fetchall()
            )
            sizes = {
                table: (await (await owner.execute("select pg_total_relation_size(%s::regclass)", [table])).fetchall())[
                    0
                ][0]
                for table in UPDATED_IN_PLACE
            }
            behind = await (
                await owner.execute(
                    "select slot_name::text, (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint"
                    " from pg_replication_slots where not temporary"
                )
            ).fetchall()
    numbers = {
        "requests": hour.requests,
        "entries": sum(kinds.values()),
        "messages": kinds["m"],
        "states": kinds["s"],
        "user_entries": kinds["u"],
        "rooms": len(hour.rooms),
        "users": PEOPLE,
        "devices": hour.devices,
        "shards": 1,
    }
    over = {
        table: f"{rows[table]} rows, at most {formula} = {value(formula, numbers)}"
        for table, formula in bounds().items()
        if rows[table] > value(formula, numbers)
    }
    assert over == {}
    assert {table: size for table, size in sizes.items() if size > MOST_BYTES} == {}
    assert {slot: lag for slot, lag in behind if lag > MOST_BEHIND} == {}
    assert waiting and max(count for (count,) in waiting) <= MOST_WAITING
    # What was not refused has left something to be counted.
    for table in (
        "roomserver.receipts",
        "roomserver.account_data",
        "roomserver.relations",
        "roomserver.presence",
        "writer.filters",
        "writer.pushers",
        "writer.openid_tokens",
        "notifications.pushes",
        "notifications.exceptions",
        "search.documents",
        "activity.users",
        "media.uploads",
        "media.thumbnails",
    ):
        assert rows[table] > 0, table
    assert hour.done["hesitate"] > 0
    figures(f"soak: {hour.requests} requests in {seconds:.0f} s, {numbers['entries']} entries, {dict(hour.done)}")
