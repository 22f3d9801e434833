"""The words of events, so that they can be found.

Invariant: a row stands for an accepted, unredacted event of a room's timeline that says something in clear: a message, or a room's
name or topic. Source: client-server API, "Server Side Search".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from eventlog.queries import Queries
from matrix.room_description import plain_topic
from readers.follower import Judged, scrubbed

SQL: Final = Queries("readers.search", "search.sql")

KEYS: Final[Mapping[str, tuple[str, str]]] = {
    "m.room.message": ("body", "content.body"),
    "m.sticker": ("body", "content.body"),
    "m.room.name": ("name", "content.name"),
    "m.room.topic": ("topic", "content.topic"),
}
"""By event type: where its text is, and the key of the API that stands for it."""

_LATEST: Final = (1 << 53) - 1


class SearchProjection:
    """Keeps search.documents. `language` is one of PostgreSQL's text search configurations."""

    name: Final = "search"

    def __init__(self, language: str) -> None:
        self._language = language

    async def begin(self, connection: AsyncConnection) -> None:
        """Nothing is cached."""

    async def clear(self, connection: AsyncConnection) -> None:
        """Removes all documents."""
        await connection.execute(SQL["clear"])

    async def apply(self, connection: AsyncConnection, outputs: Sequence[Judged]) -> None:
        """Takes in what was said, and out what was redacted."""
        redacted = {
            output.notes["redacts"] for output in outputs if output.verdict == "a" and "redacts" in output.notes
        }
        found = [
            (output, *said)
            for output in outputs
            if output.in_timeline and output.type in KEYS and output.event_id not in redacted
            if (said := text_of(output.type, output.json)) is not None
        ]
        if found:
            await connection.execute(
                SQL["index"],
                {
                    "language": self._language,
                    "entries": [output.entry for output, *_ in found],
                    "rooms": [output.room for output, *_ in found],
                    "timelines": [output.timeline for output, *_ in found],
                    "sent": [sent for *_, sent in found],
                    "event_ids": [output.event_id for output, *_ in found],
                    "types": [output.type for output, *_ in found],
                    "senders": [output.sender for output, *_ in found],
                    "keys": [KEYS[output.type][1] for output, *_ in found],
                    "bodies": [body for _, body, _ in found],
                },
            )
        if redacted:
            await connection.execute(SQL["remove"], {"event_ids": list(redacted)})
        rooms, users = scrubbed(outputs)
        if rooms or users:
            await connection.execute(SQL["scrub"], {"rooms": rooms, "users": users})

    async def tidy(self, connection: AsyncConnection) -> None:
        """Takes out what retention has dropped."""
        await connection.execute(SQL["tidy"])


def text_of(kind: str, pdu: str) -> tuple[str, int] | None:
    """The text of an event and when it was sent (ms since 1970); None where it says nothing."""
    event: dict[str, Any] = orjson.loads(pdu)
    text = words_of(kind, event["content"])
    if not text.strip():
        return None
    sent = event.get("origin_server_ts")
    return text, min(max(sent if isinstance(sent, int) else 0, 0), _LATEST)


def words_of(kind: str, content: Mapping[str, Any]) -> str:
    """What an event of one of the types says, as PostgreSQL takes it; empty for nothing."""
    text = content.get(KEYS[kind][0])
    # "In m.room.topic, content.topic as well as the body of the text/plain representation in content['m.topic']"
    more = plain_topic(content) if kind == "m.room.topic" else None
    return plain("\n".join(dict.fromkeys(one for one in (text, more) if isinstance(one, str))))


def plain(text: str) -> str:
    """Text as PostgreSQL takes it: words are all that matters of it."""
    return text.replace("\0", " ")
