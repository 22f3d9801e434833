"""The present: caches moved forward output by output, and who has to be told.

Invariant: after `apply` the rooms and users here are exactly as of the applied positions; every waiter of a concerned user is woken
once per batch, after all of it has been applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import monotonic, time
from typing import Any, Final

import orjson

from matrix.ignored_users import IGNORED_USERS, ignored_users
from matrix.invite_permission import INVITE_PERMISSION_TYPES, InvitePermission
from readers.sync.event_bytes import client_event
from readers.sync.events import Events, replaced_by
from readers.sync.inbox import forget_received
from readers.sync.outputs import Output
from readers.sync.presence import Presences
from readers.sync.rooms import Receipt, Room, Rooms, Typing
from readers.sync.unread import PUSH_RULES, Unread, evaluator_of
from readers.sync.users import AccountData, Change, Message, Stay, User, Users

FIRST: Final = 16
"""Waiters woken at once; the others of a crowd come after what else is to be done, such as the answer to the sender."""
LEARNT: Final = (IGNORED_USERS, PUSH_RULES, *INVITE_PERMISSION_TYPES)
"""Types of global account data that say something to the server."""


Heard = Callable[[str, int, dict[str, Any]], None]
"""Takes a user's id, a position, and the entry of their presence there."""


class Current:
    """Rooms, users and their waiters as of `positions`, which the feed moves."""

    def __init__(self, positions: list[int], heard: Heard | None = None) -> None:
        """`heard` is told of every presence."""
        self.positions = positions
        self._heard = heard
        self.presences = Presences()
        self.rooms = Rooms(positions)
        self.users = Users()
        self.events = Events()
        self.unread = Unread(self.rooms, self.events)
        self._woken: set[User] = set()
        self._stirred: dict[int, Output] = {}
        """By room, the last output of a batch that concerns whoever is joined."""
        self.peekers: dict[int, set[asyncio.Future[None]]] = {}
        """By room, who waits for something to happen in it, member or not."""
        self._ahead: set[asyncio.Future[None]] = set()

    def apply(self, outputs: list[Output]) -> None:
        """Moves everything forward by outputs whose positions have been reached.

        Whatever it raises, the caches are to be given up then: they would say yes to what they have not seen.
        """
        for output in outputs:
            if output.verdict != "a":
                continue
            if output.kind == "u":
                self._apply_user_entry(output)
            elif output.kind == "e":
                self._apply_typing(output)
            elif output.room is not None:
                self._apply_event(output)
        for nid, last in self._stirred.items():
            for user in self.users.joined(nid):
                self._concern(user, last)
            if self.peekers and (waiters := self.peekers.get(nid)) is not None:
                wake(waiters)
        self._stirred.clear()
        self.rooms.shrink()
        self._wake()

    async def reach(self, positions: tuple[int, ...], timeout: float) -> bool:
        """Waits until these positions have been applied; False if they have not been in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while any(mine < wanted for mine, wanted in zip(self.positions, positions, strict=True)):
            future = loop.create_future()
            self._ahead.add(future)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                return False
            finally:
                self._ahead.discard(future)
        return True

    def _apply_event(self, output: Output) -> None:
        nid = output.room
        assert nid is not None
        if output.timeline is not None and output.timeline > 0:
            room = self.rooms.touch(nid, output.room_id or "", output.shard, output.position)
            early = False
            if output.annotation is not None and (target := output.notes.get("redacts")) is not None:
                early = target == output.event_id
                self._redact(room, output, target)
            if output.annotation is not None:
                if "state" in output.notes:
                    room.members.forget(output.position)
                elif (members := output.notes.get("members")) is not None:
                    room.members.change(output.position, members)
            if output.annotation is not None and room.basis is not None:
                if (joined := output.notes.get("joined")) is not None:
                    room.basis = replace(room.basis, joined=joined)
                if output.type == "m.room.power_levels" or "state" in output.notes:
                    room.basis = None
            if early:
                # Redacted before it came: the tables know by what.
                self.rooms.forget_entries(room, output.position)
            else:
                self.rooms.add(room, output)
                if output.kind == "s":
                    self.events.learn(output)
            self._stirred[nid] = output
        if output.annotation is not None and (members := output.notes.get("members")) is not None:
            for user_id, new, old in members:
                if old == "j" and new != "j":
                    self._stop_typing(nid, user_id, output.position)
                if (new == "j") != (old == "j"):
                    for other in self.users.joined(nid):
                        other.add_list(user_id, output.shard, output.position, parted=new != "j")
                if new == "j" and old != "j" and (known := self.presences.get(user_id)) is not None:
                    # To whom is there already, the presence of who comes is news.
                    for other in self.users.joined(nid):
                        other.add_presence(known._replace(shard=output.shard, position=output.position))
                user = self.users.get(user_id)
                if user is not None and output.position > user.floors[output.shard]:
                    self._change(user, output, user_id, new, old)

    def _change(self, user: User, output: Output, user_id: str, new: str, old: str | None) -> None:
        nid, room_id = output.room, output.room_id
        assert nid is not None and room_id is not None
        user.add_change(Change(output.shard, output.position, nid, room_id, new, old))
        self.place(user, nid, room_id, output.shard, output.position, new, old)
        self._concern(user, output)

    def place(self, user: User, nid: int, room_id: str, shard: int, position: int, new: str, old: str | None) -> None:
        """Carries a membership change out."""
        before = user.rooms.get(nid)
        joined_at, left_at = (None, None) if before is None else (before.joined_at, before.left_at)
        if new == "j" and old != "j":
            joined_at = position
        if old == "j" and new != "j":
            left_at = position
        if new != "j" or old != "j":
            user.unread.pop(nid, None)
        self.users.place(user, nid, Stay(room_id, shard, new, position, joined_at, left_at))

    def learn(self, user: User, kind: str, content: Any) -> None:
        """Takes what global account data says to the server."""
        if kind == IGNORED_USERS:
            user.ignored = ignored_users(content)
            user.unread.clear()
        elif kind in INVITE_PERMISSION_TYPES:
            user.invite_settings[kind] = content
            user.invites = InvitePermission.parse(user.invite_settings)
        elif kind == PUSH_RULES:
            user.evaluator = evaluator_of(content)
            user.unread.clear()

    def _redact(self, room: Room, output: Output, target: str) -> None:
        self.events.redacted(target)
        version = self.events.versions.get(room.nid)
        for entry in room.entries:
            if entry.event_id == target:
                if version is None or output.type != "m.room.redaction":
                    # The redaction came first, or nobody here has asked for the room yet: the tables know.
                    self.rooms.forget_entries(room, output.position - 1)
                    return
                entry.redact(client_event(output.members), version)
            elif replaced_by(entry) == target:
                entry.redact_replaced()
        room.fragments = {}

    def _apply_user_entry(self, output: Output) -> None:
        if output.type == "m.receipt":
            body = orjson.loads(output.json)
            receipt = Receipt(
                output.position,
                output.sender,
                body["receipt_type"],
                body.get("thread_id") or "",
                body["event_id"],
                body["ts"],
            )
            if output.room is None:
                return
            room = self.rooms.touch(output.room, body["room_id"], output.shard, output.position)
            self.rooms.add_receipt(room, receipt)
            if receipt.receipt_type == "m.read":
                self._stirred[output.room] = output
            elif (user := self.users.get(output.sender)) is not None:
                self._concern(user, output)
        elif output.type == "account_data":
            user = self.users.get(output.sender)
            if user is not None and output.position > user.floors[output.shard]:
                body = orjson.loads(output.json)
                content = orjson.dumps(body["content"])
                user.add_account_data(
                    AccountData(output.shard, output.position, body.get("room_id") or "", body["type"], content)
                )
                if not body.get("room_id"):
                    self.learn(user, body["type"], body["content"])
                self._concern(user, output)
        elif output.type == "presence":
            self._apply_presence(output)
        elif output.type == "to_device":
            self._apply_messages(output)
        elif output.type == "received":
            if (user := self.users.get(output.sender)) is not None:
                body = orjson.loads(output.json)
                forget_received(user, body["device_id"], body["upto"])
        elif output.type == "keys":
            self._apply_keys(output)
        elif output.type == "key_stock":
            for user_id, device_ids in orjson.loads(output.json)["devices"].items():
                if (user := self.users.get(user_id)) is not None:
                    user.forget_stocks()
                    user.stock_changed.update(dict.fromkeys(device_ids, (output.shard, output.position)))
                    self._concern(user, output)
        elif output.type == "forget" and output.room is not None:
            user = self.users.get(output.sender)
            if user is not None and (stay := user.rooms.get(output.room)) is not None and stay.membership in "lb":
                user.rooms[output.room] = stay._replace(forgotten=True)

    def _apply_messages(self, output: Output) -> None:
        body = orjson.loads(output.json)
        for user_id, contents in body["messages"].items():
            user = self.users.get(user_id)
            if user is None or output.position <= user.inbox_since[output.shard]:
                continue
            for device_id, content in contents.items():
                event = orjson.dumps({"type": body["type"], "sender": output.sender, "content": content})
                user.add_message(Message(output.shard, output.position, device_id, event))
            self._concern(user, output)

    def _apply_keys(self, output: Output) -> None:
        user, keys = self.users.get(output.sender), orjson.loads(output.json)["keys"]
        if user is not None:
            if not keys or any(key["usage"] != "signed" for key in keys):
                user.add_list(output.sender, output.shard, output.position)
            for key in keys:
                if key["usage"] == "signed":
                    user.add_list(key["id"], output.shard, output.position)
                elif key["usage"] == "device" and key["key"] is None:
                    # Another device by that name has none of this one's keys.
                    user.stock_changed.pop(key["id"], None)
                    user.forget_stocks()
            self._concern(user, output)
        for nid in output.notes.get("rooms", ()):
            for other in self.users.joined(nid):
                other.add_list(output.sender, output.shard, output.position)
                self._concern(other, output)

    def _apply_presence(self, output: Output) -> None:
        presence = self.presences.learn(output)
        for nid in output.notes.get("rooms", ()):
            for user in self.users.joined(nid):
                user.add_presence(presence)
                self._concern(user, output)
        if self._heard is not None:
            self._heard(output.sender, output.position, orjson.loads(output.json))

    def _apply_typing(self, output: Output) -> None:
        notice = output.notes.get("typing")
        if not isinstance(notice, dict) or output.room is None:
            return
        room = self.rooms.touch(output.room, notice["room_id"], output.shard, output.position)
        self._notice_typing(room, notice, output.position)
        self._stirred[output.room] = output

    def _notice_typing(self, room: Room, notice: dict[str, Any], position: int) -> None:
        if room.typing is None:
            room.typing = Typing({})
        room.typing.changed = position
        if notice["typing"]:
            until = room.typing.until[notice["user_id"]] = int(notice["until"])
            self._expire_at(room.nid, until)
        else:
            room.typing.until.pop(notice["user_id"], None)

    def _stop_typing(self, nid: int, user_id: str, position: int) -> None:
        """Who leaves types no more."""
        room = self.rooms.get(nid)
        if room is not None and room.typing is not None and room.typing.until.pop(user_id, None) is not None:
            room.typing.changed = position

    def _expire_at(self, nid: int, until: int) -> None:
        seconds = min(max(0.0, until / 1000 - time()), 600.0) + 0.01
        asyncio.get_running_loop().call_later(seconds, self._expire_typing, nid)

    def inherit_typing(self, former: Current) -> None:
        """Takes over who types from caches that are given up."""
        for room in former.rooms:
            if room.typing is not None and room.shard < len(self.positions):
                at = self.positions[room.shard]
                heir = self.rooms.touch(room.nid, room.room_id, room.shard, at)
                heir.typing = replace(room.typing, until=dict(room.typing.until), changed=min(room.typing.changed, at))
                for until in room.typing.until.values():
                    self._expire_at(room.nid, until)

    def recall_typing(self, notices: Iterable[tuple[int, int, int, dict[str, Any]]], upto: Sequence[int]) -> None:
        """Takes notices from before these caches began, as of positions by shard: (shard, position, room number, notice).

        Who was told by another process that somebody types has to be told by this one when they stop.
        """
        for shard, position, nid, notice in notices:
            known = self.rooms.get(nid)
            if known is not None and known.typing is not None and known.typing.changed > upto[shard]:
                continue  # The feed has brought a later one.
            last = self.rooms.floors[shard] if known is None else known.last
            self._notice_typing(self.rooms.touch(nid, notice["room_id"], shard, last), notice, position)

    def _expire_typing(self, nid: int) -> None:
        room = self.rooms.get(nid)
        if room is None or room.typing is None:
            return
        now = time() * 1000
        expired = [user_id for user_id, until in room.typing.until.items() if until <= now]
        if not expired:
            return
        for user_id in expired:
            del room.typing.until[user_id]
        room.typing.expired_at = monotonic()
        for user in self.users.joined(nid):
            user.nudged_at = room.typing.expired_at
            self._woken.add(user)
        self._wake()

    def _concern(self, user: User, output: Output) -> None:
        user.last[output.shard] = max(user.last[output.shard], output.position)
        if user.waiters:
            self._woken.add(user)

    def leave(self) -> None:
        """These caches are given up: everybody who waits looks again."""
        for user in self.users:
            user.nudged_at = monotonic()
            self._woken.add(user)
        for waiters in self.peekers.values():
            wake(waiters)
        self._wake()

    def _wake(self) -> None:
        waiting = [future for user in self._woken for future in user.waiters]
        self._woken.clear()
        wake(waiting[:FIRST])
        if len(waiting) > FIRST:
            asyncio.get_running_loop().call_soon(wake, waiting[FIRST:])
        wake(self._ahead)


def wake(waiters: Iterable[asyncio.Future[None]]) -> None:
    """Lets those who wait look again."""
    for future in waiters:
        if not future.done():
            future.set_result(None)
