"""A writer of the server under test, without HTTP: rooms and messages of local users."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from eventlog.head import Head
from eventlog.pools import component_dsn, make_pool
from eventlog.settings import Settings
from eventlog.typing_messages import message_key
from matrix.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS
from matrix.signatures import SigningKey
from matrix.unpadded_base64 import decode
from writer.drafts import Draft
from writer.log_writer import LogWriter

SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"


@dataclass
class Talk:
    """A log writer and somebody who uses it."""

    writer: LogWriter
    user: str = "@creator:test.example"

    async def room(self, version: str = DEFAULT_ROOM_VERSION) -> str:
        """A public room of `user`."""

        def rest(room_id: str) -> list[Draft]:
            return [
                Draft(room_id, self.user, "m.room.member", {"membership": "join"}, self.user),
                Draft(
                    room_id,
                    self.user,
                    "m.room.power_levels",
                    {"users": {} if version == "12" else {self.user: 100}},
                    "",
                ),
                Draft(room_id, self.user, "m.room.join_rules", {"join_rule": "public"}, ""),
            ]

        content = (
            {"room_version": version} if version in ("11", "12") else {"room_version": version, "creator": self.user}
        )
        create = Draft(f"!{id(content)}:test.example", self.user, "m.room.create", content, "")
        return await self.writer.create_room(ROOM_VERSIONS[version], create, rest)

    def message(self, room_id: str, body: str, *, sender: str = "", txn: str | None = None) -> Draft:
        """A message as a draft."""
        content = {"msgtype": "m.text", "body": body}
        return Draft(
            room_id,
            sender or self.user,
            "m.room.message",
            content,
            device_id="D",
            txn_id=txn,
            txn_path=f"/send/{room_id}",
        )


@contextlib.asynccontextmanager
async def talk(settings: Settings) -> AsyncIterator[Talk]:
    """A writer process, all but its process."""
    key = SigningKey("ed25519:a_test", decode(SEED))
    pool = make_pool(settings, "writer")
    async with (
        pool,
        Head(component_dsn(settings, "writer", direct=True)) as head,
        LogWriter(
            pool,
            head,
            server_name="test.example",
            key=key,
            typing_key=message_key(settings.server.signing_key.read_bytes()),
            shards=1,
            timeout=30.0,
        ) as writer,
    ):
        yield Talk(writer)
