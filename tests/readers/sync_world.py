"""A server in one process for the sync reader's tests: room server, log writer, sync services, and clients that keep state."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from openapi import check_response

from eventlog.configuration import load_settings
from eventlog.head import Head
from eventlog.pools import component_dsn, make_pool
from eventlog.settings import Settings
from eventlog.typing_messages import message_key
from matrix.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS
from matrix.signatures import SigningKey
from matrix.unpadded_base64 import decode
from readers.sync.request import SyncRequest
from readers.sync.service import SyncService
from roomserver.service import RoomServer
from writer.drafts import Draft, Sent
from writer.log_writer import LogWriter

SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
Json = dict[str, Any]
_numbers = itertools.count(1)


def user(name: str) -> str:
    return f"@{name}:test.example"


def settings_of(dsn: str, folder: Path) -> Settings:
    """Settings of a server on a test database."""
    (folder / "signing.key").write_text(f"ed25519 a_test {SEED}\n")
    return load_settings(
        {"WALDEN_DATA_DIR": str(folder), "WALDEN_DATABASE_DSN": dsn, "WALDEN_SERVER_NAME": "test.example"},
        folder / "walden.toml",
    )


@dataclass
class World:
    """What a test acts through."""

    settings: Settings
    writer: LogWriter
    sync: SyncService

    async def room(
        self,
        creator: str,
        *,
        version: str = DEFAULT_ROOM_VERSION,
        visibility: str = "shared",
        name: str = "",
        **content: Any,
    ) -> str:
        """A public room."""

        def rest(room_id: str) -> list[Draft]:
            powers = {} if version == "12" else {creator: 100}
            drafts = [
                Draft(room_id, creator, "m.room.member", {"membership": "join"}, creator),
                Draft(room_id, creator, "m.room.power_levels", {"users": powers, "invite": 0, "redact": 50}, ""),
                Draft(room_id, creator, "m.room.join_rules", {"join_rule": "public"}, ""),
                Draft(room_id, creator, "m.room.history_visibility", {"history_visibility": visibility}, ""),
            ]
            if name:
                drafts.append(Draft(room_id, creator, "m.room.name", {"name": name}, ""))
            return drafts

        if version not in ("11", "12"):
            content["creator"] = creator
        create = Draft(
            f"!{next(_numbers)}:test.example", creator, "m.room.create", {"room_version": version, **content}, ""
        )
        return await self.writer.create_room(ROOM_VERSIONS[version], create, rest)

    async def event(self, room_id: str, sender: str, kind: str, content: Json, **more: Any) -> Sent:
        (sent,) = await self.writer.send([Draft(room_id, sender, kind, content, **more)])
        return sent

    async def say(self, room_id: str, sender: str, body: str, **more: Any) -> Sent:
        return await self.event(room_id, sender, "m.room.message", {"msgtype": "m.text", "body": body}, **more)

    async def member(self, room_id: str, sender: str, target: str, membership: str, **content: Any) -> Sent:
        return await self.event(
            room_id, sender, "m.room.member", {"membership": membership, **content}, state_key=target
        )

    async def join(self, room_id: str, *users: str) -> None:
        for user_id in users:
            await self.member(room_id, user_id, user_id, "join")

    async def leave(self, room_id: str, user_id: str) -> None:
        await self.member(room_id, user_id, user_id, "leave")

    async def receipt(self, room_id: str, user_id: str, event_id: str, kind: str = "m.read", thread: str = "") -> None:
        content = {"room_id": room_id, "event_id": event_id, "receipt_type": kind, "thread_id": thread, "ts": 1}
        await self.writer.append_entry(type="m.receipt", user_id=user_id, content=content, room_id=room_id)

    async def account_data(self, user_id: str, kind: str, content: Json, room_id: str = "") -> None:
        body = {"room_id": room_id, "type": kind, "content": content}
        await self.writer.append_entry(type="account_data", user_id=user_id, content=body, room_id=room_id or None)

    async def forget(self, room_id: str, user_id: str) -> None:
        await self.writer.append_entry(type="forget", user_id=user_id, content={"room_id": room_id}, room_id=room_id)

    async def device_keys(self, user_id: str, device_id: str, key: Json | None) -> None:
        """Keys of a device, or that it has gone."""
        content = {"keys": [{"usage": "device", "id": device_id, "key": key}]}
        await self.writer.append_entry(type="keys", user_id=user_id, content=content)

    async def to_devices(self, sender: str, messages: dict[str, dict[str, Json]]) -> None:
        """Messages to devices, by user and device."""
        content = {"type": "m.test", "messages": messages}
        await self.writer.append_entry(type="to_device", user_id=sender, content=content)

    async def presence(self, user_id: str, presence: str, status: str) -> None:
        """Says how a user is present, for an hour."""
        now = int(time.time() * 1000)
        content = {"presence": presence, "status_msg": status, "active_at": now, "until": now + 3_600_000, "by": "test"}
        await self.writer.append_entry(type="presence", user_id=user_id, content=content)


@contextlib.asynccontextmanager
async def world(settings: Settings) -> AsyncIterator[World]:
    """The whole server, all but its processes and HTTP."""
    roomserver = RoomServer(settings, 0)
    running = asyncio.create_task(roomserver.run())
    try:
        async with (
            make_pool(settings, "writer") as pool,
            Head(component_dsn(settings, "writer", direct=True)) as head,
            LogWriter(
                pool,
                head,
                server_name="test.example",
                key=SigningKey("ed25519:a_test", decode(SEED)),
                typing_key=message_key(settings.server.signing_key.read_bytes()),
                shards=1,
                timeout=30.0,
            ) as writer,
            sync_process(settings) as sync,
        ):
            yield World(settings, writer, sync)
        if running.done():
            await running
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@contextlib.asynccontextmanager
async def sync_process(settings: Settings) -> AsyncIterator[SyncService]:
    """A sync service with connections of its own."""
    async with (
        make_pool(settings, "reader") as pool,
        Head(component_dsn(settings, "reader", direct=True), want_verdicts=False) as head,
        SyncService(settings, head, pool) as service,
    ):
        yield service


async def caught_up(service: SyncService) -> None:
    """Waits until a service has seen everything that is committed."""
    positions = tuple(row[0] for row in await service.rows("heads"))
    assert await service.current.reach(positions, 10)


@dataclass
class RoomModel:
    """A room as a client knows it."""

    section: str
    state: dict[tuple[str, str], str] = field(default_factory=dict)
    timeline: list[str] = field(default_factory=list)
    account_data: dict[str, Any] = field(default_factory=dict)
    receipts: dict[tuple[str, str, str], str] = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    unread: Json = field(default_factory=dict)
    unread_threads: Json = field(default_factory=dict)
    typing: list[str] = field(default_factory=list)
    gap: bool = False


@dataclass
class Client:
    """A client that applies responses as the specification says."""

    service: SyncService
    user_id: str
    device_id: str = "DEVICE"
    filter: Json = field(default_factory=dict)
    state_after: bool = False
    since: str = ""
    rooms: dict[str, RoomModel] = field(default_factory=dict)
    account_data: dict[str, Any] = field(default_factory=dict)
    presence: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    last: Json = field(default_factory=dict)
    received: dict[str, Json] = field(default_factory=dict)
    """Every event that any timeline brought, by id."""

    messages: list[int] = field(default_factory=list)
    """The numbers of the messages to the device."""
    keys: dict[str, int] = field(default_factory=dict)
    """Of everybody whose devices it keeps track of, when they had changed last as it looked."""
    began_afresh: bool = False
    look: Callable[[str, Iterable[str] | None], dict[str, int]] | None = None
    """When devices of users changed last; without users, of all who share a room with the first. None: it does not track."""

    async def sync(self, timeout: float = 0.0, *, full_state: bool = False, since: str | None = None) -> Json:
        """One request, applied."""
        began = not (self.since if since is None else since)
        await self.sync_raw(timeout, full_state=full_state, since=since)
        self.messages += [event["content"]["n"] for event in self.last.get("to_device", {}).get("events", [])]
        if self.look is not None:
            lists = self.last.get("device_lists", {"changed": [], "left": []})
            self.keys |= self.look(self.user_id, None if began else lists["changed"])
            for other in lists["left"]:
                self.keys.pop(other, None)
        for entry in self.last.get("account_data", {}).get("events", []):
            self.account_data[entry["type"]] = entry["content"]
        for event in self.last.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = (event["content"]["presence"], event["content"].get("status_msg"))
        for section, rooms in self.last.get("rooms", {}).items():
            for room_id, body in rooms.items():
                self._apply(section, room_id, body)
        return self.last

    async def sync_raw(self, timeout: float = 0.0, *, full_state: bool = False, since: str | None = None) -> None:
        """One request, of which only the token is taken."""
        chosen = orjson.dumps(self.filter).decode() if self.filter else ""
        request = SyncRequest(
            self.user_id,
            self.device_id,
            await self.service.shape(self.user_id, chosen, self.state_after),
            self.since if since is None else since,
            timeout,
            full_state,
        )
        self.last = orjson.loads(await self.service.sync(request))
        check_response("GET", f"/_matrix/client/v3/sync?filter={chosen}", 200, self.last)
        self.since = self.last["next_batch"]

    async def settle(self) -> None:
        """Syncs until everything that is committed has been told."""
        while True:
            await caught_up(self.service)
            before = self.since
            if "rooms" not in await self.sync(0.01) and before == self.since:
                return

    def room(self, room_id: str) -> Json:
        """The room in the last response, from whichever section."""
        found: list[Json] = [rooms[room_id] for rooms in self.last.get("rooms", {}).values() if room_id in rooms]
        assert len(found) == 1, f"{room_id} is in {len(found)} sections of {self.last}"
        return found[0]

    def bodies(self, room_id: str) -> list[str]:
        """The bodies of messages in the room's timeline in the last response."""
        return [e["content"]["body"] for e in self.room(room_id)["timeline"]["events"] if e["type"] == "m.room.message"]

    def _apply(self, section: str, room_id: str, body: Json) -> None:
        model = self.rooms.get(room_id)
        if model is None or section in ("invite", "knock"):
            model = self.rooms[room_id] = RoomModel(section)
        if section == "join" and model.section != "join":
            # Whatever was known from before a stay is discarded: the join tells the whole state.
            model = self.rooms[room_id] = RoomModel(section)
        model.section = section
        if section in ("invite", "knock"):
            for event in body[f"{section}_state"]["events"]:
                model.state[event["type"], event["state_key"]] = orjson.dumps(event["content"]).decode()
            return
        timeline = body["timeline"]
        self.received.update({event["event_id"]: event for event in timeline["events"]})
        if timeline["limited"]:
            model.timeline.clear()
            model.gap = True
        model.timeline += [event["event_id"] for event in timeline["events"]]
        told = body.get("state_after" if self.state_after else "state", {}).get("events", [])
        assert ("state" in body) is not self.state_after
        for event in told if self.state_after else [*told, *timeline["events"]]:
            if "state_key" in event:
                model.state[event["type"], event["state_key"]] = event["event_id"]
        for event in body.get("account_data", {}).get("events", []):
            model.account_data[event["type"]] = event["content"]
        for event in body.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.receipt":
                for event_id, kinds in event["content"].items():
                    for kind, users in kinds.items():
                        for user_id, value in users.items():
                            model.receipts[kind, user_id, value.get("thread_id", "")] = event_id
            elif event["type"] == "m.typing":
                model.typing = event["content"]["user_ids"]
        model.summary |= body.get("summary", {})
        if "unread_notifications" in body:
            model.unread = body["unread_notifications"]
            model.unread_threads = body.get("unread_thread_notifications", {})
