"""Local rooms and users who do everything there is to do, at random, several things at a time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from local_rooms import Talk

from matrix.errors import MatrixError
from writer.drafts import Draft

SERVER = "test.example"
# What text columns cannot hold, and what stands for it there.
STRANGE = ("plain", "a\0b", "\\u0000", "\U0010ffff0", "\0\0\U0010ffff", "")


class Life:
    """People in rooms. `live` does a number of things; what the server refuses is refused."""

    def __init__(self, talk: Talk, seed: int, *, people: int = 6, rooms: int = 3) -> None:
        self.talk = talk
        self.chance = random.Random(seed)
        self.people = [talk.user, *(f"@p{n}:{SERVER}" for n in range(people - 1))]
        self.count = rooms
        self.rooms: list[str] = []
        self.sent: dict[str, list[str]] = {}
        self.refused = 0

    async def live(self, things: int, *, at_once: int = 8) -> Life:
        """Make the rooms if there are none yet, then do `things`."""
        first = not self.rooms
        for number in range(self.count if first else 0):
            room_id = await self.talk.room(("12", "11", "6")[number % 3])
            self.rooms.append(room_id)
            self.sent[room_id] = []
        for begun in range(0, things, at_once):
            await asyncio.gather(*(self._do() for _ in range(min(at_once, things - begun))))
        if first:
            await self._leave_traces()
        return self

    async def _leave_traces(self) -> None:
        """One of each that chance may have left out or undone."""
        user, room_id = self.talk.user, self.rooms[0]
        await self._send(Draft(room_id, user, "m.room.member", {"membership": "join"}, user))
        await self._send(self.talk.message(room_id, "here"))
        target = self.sent[room_id][-1]
        relation = {"body": "x", "m.relates_to": {"event_id": target, "rel_type": "m.thread"}}
        await self._send(Draft(room_id, user, "m.room.message", relation))
        await self._send(Draft(room_id, user, "m.room.redaction", {}, redacts=target))
        await self._send(Draft(room_id, user, "m.room.redaction", {}, redacts="$unheard-of"))
        receipt = {"room_id": room_id, "event_id": target, "receipt_type": "m.read", "thread_id": "", "ts": 1}
        await self._entry("m.receipt", f"@reader:{SERVER}", receipt, room_id)
        await self._entry("report", user, {"room_id": room_id, "event_id": target, "reason": "a\0b"})
        await self._entry("profile", user, {"field": "displayname", "value": "Me"})
        presence = {"presence": "online", "status_msg": "here", "active_at": 1, "until": 2, "by": "me"}
        await self._entry("presence", user, presence)
        device = {"usage": "device", "id": "DEVICE", "key": {"keys": {"ed25519:DEVICE": "a\0b"}}}
        gone = {"usage": "device", "id": "GONE", "key": None}
        await self._entry("keys", user, {"keys": [device, {**device, "id": "GONE"}]})
        messages = {user: {"DEVICE": {"n": "a\0b"}, "GONE": {}}}
        await self._entry("to_device", user, {"type": "a\0b", "messages": messages})
        await self._entry("keys", user, {"keys": [gone]})
        again = {"type": "m.test", "messages": messages}
        sent = await self.talk.writer.append_entry(type="to_device", user_id=user, content=again)
        await self._entry("received", user, {"device_id": "GONE", "upto": [sent.position]})
        await self._entry("alias", user, {"alias": f"#trace:{SERVER}", "room_id": room_id}, room_id)
        await self._entry("directory", user, {"room_id": room_id, "published": True}, room_id)

    async def _do(self) -> None:
        # The server says no to much of this, as it should.
        try:
            await self.chance.choice(
                (
                    self._say,
                    self._say,
                    self._relate,
                    self._redact,
                    self._set_state,
                    self._join,
                    self._join,
                    self._invite,
                    self._leave,
                    self._remove,
                    self._receipt,
                    self._account_data,
                    self._profile,
                    self._presence,
                    self._alias,
                    self._publish,
                    self._forget,
                )
            )()
        except MatrixError:
            self.refused += 1

    def _who(self) -> str:
        return self.chance.choice(self.people)

    def _where(self) -> str:
        return self.chance.choice(self.rooms)

    def _strange(self) -> str:
        return self.chance.choice(STRANGE)

    async def _send(self, draft: Draft) -> None:
        (sent,) = await self.talk.writer.send([draft])
        self.sent[draft.room_id].append(sent.event_id)

    async def _entry(self, type: str, user: str, content: dict[str, Any], room_id: str | None = None) -> None:
        await self.talk.writer.append_entry(type=type, user_id=user, content=content, room_id=room_id)

    async def _say(self) -> None:
        await self._send(self.talk.message(self._where(), self._strange(), sender=self._who()))

    async def _relate(self) -> None:
        room_id = self._where()
        target = self.chance.choice([*self.sent[room_id][-9:], "$nowhere", self._strange(), 7])
        kind = self.chance.choice(["m.replace", "m.annotation", self._strange(), "x" * 256, None])
        content = {"body": "x", "m.relates_to": {"event_id": target, "rel_type": kind}}
        await self._send(Draft(room_id, self._who(), "m.room.message", content))

    async def _redact(self) -> None:
        room_id = self._where()
        if self.sent[room_id]:
            target = self.chance.choice(self.sent[room_id])
            await self._send(Draft(room_id, self._who(), "m.room.redaction", {"reason": "x"}, redacts=target))

    async def _set_state(self) -> None:
        content = {"name": self._strange(), "state": [1], "redacts": "$x"}
        await self._send(Draft(self._where(), self._who(), f"test.{self._strange()}", content, self._strange()))

    async def _member(self, sender: str, membership: str, user: str) -> None:
        content = {"membership": membership, "displayname": self._strange()}
        await self._send(Draft(self._where(), sender, "m.room.member", content, user))

    async def _join(self) -> None:
        user = self._who()
        await self._member(user, "join", user)

    async def _invite(self) -> None:
        await self._member(self._who(), "invite", self._who())

    async def _leave(self) -> None:
        user = self._who()
        await self._member(user, "leave", user)

    async def _remove(self) -> None:
        await self._member(self.talk.user, self.chance.choice(("ban", "leave")), self.chance.choice(self.people[1:]))

    async def _receipt(self) -> None:
        room_id = self._where()
        event_id = self.chance.choice([*self.sent[room_id], "$nowhere"])
        content = {
            "room_id": room_id,
            "event_id": event_id,
            "receipt_type": self.chance.choice(("m.read", "m.read.private")),
            "thread_id": self.chance.choice(("", "main", "\U0010ffff1")),
            "ts": self.chance.randrange(10**12),
        }
        await self._entry("m.receipt", self._who(), content, room_id)

    async def _account_data(self) -> None:
        room_id = self.chance.choice([*self.rooms, ""])
        value = self.chance.choice([self._strange(), 1.5, 1e300, -0.0, {"b": [None, self._strange()], "a": {}}])
        content = {
            "room_id": room_id,
            "type": f"test.{self._strange()}",
            "content": {"value": value, self._strange(): 1},
        }
        await self._entry("account_data", self._who(), content, room_id or None)

    async def _presence(self) -> None:
        presence = self.chance.choice(["online", "unavailable", "offline"])
        content: dict[str, Any] = {"presence": presence, "active_at": 1, "until": 2, "by": "me"}
        status = self.chance.choice([{}, {"status_msg": None}, {"status_msg": self._strange()}])
        expected = self.chance.choice([{}, {}, {"expected": 0}])
        await self._entry("presence", self._who(), {**content, **status, **expected})

    async def _profile(self) -> None:
        value = self.chance.choice([self._strange(), None, {"x": self._strange()}, [], False])
        await self._entry("profile", self._who(), {"field": f"test.{self._strange()}", "value": value})

    async def _alias(self) -> None:
        alias = f"#{self.chance.choice(('a', 'b', chr(0x10FFFF) + '1'))}:{SERVER}"
        room_id = self.chance.choice([*self.rooms, None])
        await self._entry("alias", self._who(), {"alias": alias, "room_id": room_id}, room_id)

    async def _publish(self) -> None:
        room_id = self._where()
        content = {"room_id": room_id, "published": self.chance.random() < 0.6}
        await self._entry("directory", self._who(), content, room_id)

    async def _forget(self) -> None:
        room_id, user = self._where(), self._who()
        with contextlib.suppress(MatrixError):
            await self._member(user, "leave", user)
        await self._entry("forget", user, {"room_id": room_id}, room_id)
