"""Typing notifications get a short-lived output each, so that they have a position like everything else."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import AsyncConnection

from eventlog.pgoutput import Message
from eventlog.settings import Settings
from eventlog.typing_messages import decode, message_key
from roomserver.effects import Effects
from roomserver.store import Store


def typing_key(settings: Settings) -> bytes:
    """The key that this server's typing messages carry a code of."""
    return message_key(settings.server.signing_key.read_bytes())


async def judge_typing(
    connection: AsyncConnection, messages: Sequence[Message], effects: Effects, key: bytes, store: Store
) -> None:
    """Adds an output per genuine message of a known room."""
    genuine = [message for message in (decode(m.content, key) for m in messages) if message is not None]
    if not genuine:
        return
    await store.load_rooms(connection, {message.room_id for message in genuine})
    cursor = await connection.execute("select eventlog.next_id() from generate_series(1, %s)", [len(genuine)])
    for message, (entry,) in zip(genuine, await cursor.fetchall(), strict=True):
        room = store.rooms.get(message.room_id)
        if room is None:
            continue
        words = {
            "room_id": message.room_id,
            "user_id": message.user_id,
            "typing": message.typing,
            "until": message.ts + message.timeout,
        }
        effects.output(effects.next_position(), "e", entry, "a", room=room.nid, annotation={"typing": words})
