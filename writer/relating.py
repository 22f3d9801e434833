"""What an event may relate to: the checks that a client's own server makes before it sends.

Invariant: an event that relates to nothing costs nothing here, and a repeated request is never refused for what its first try sent.
Source: client-server API, "Validation of m.thread relationships", "Avoiding duplicate annotations".
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe
from matrix.errors import MatrixError, unknown
from writer.drafts import Draft

SQL = Queries("writer", "relating.sql")
CHECKED: Final = ("m.thread", "m.annotation")


class Relating:
    """Checks relations against what is there."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def check(self, draft: Draft) -> None:
        """M_UNKNOWN (400) for a thread that begins with an event which relates to another one; M_DUPLICATE_ANNOTATION."""
        relation = draft.content.get("m.relates_to")
        if not isinstance(relation, dict) or relation.get("rel_type") not in CHECKED:
            return
        target = relation.get("event_id")
        if not isinstance(target, str):
            return
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                SQL["related_to"], {"event_id": safe(target), "room_id": draft.room_id, "user_id": draft.sender}
            )
            row = await cursor.fetchone()
        if row is None:
            return
        pdu, annotations = row
        if relation["rel_type"] == "m.thread":
            if _rel_type(orjson.loads(pdu)["content"].get("m.relates_to")) is not None:
                raise unknown(400, "Cannot start threads from an event with a relation.")
        elif any(_repeats(draft, one) for one in (orjson.loads(annotations) if annotations else ())):
            raise MatrixError(400, "M_DUPLICATE_ANNOTATION", "You have annotated the event with this already.")


def _rel_type(relation: Any) -> str | None:
    kind = relation.get("rel_type") if isinstance(relation, dict) else None
    return kind if isinstance(kind, str) else None


def _repeats(draft: Draft, annotation: list[Any]) -> bool:
    """Whether an annotation is the same as the draft, and not what an earlier try of the same request has sent."""
    event_type, device_id, txn_id, pdu = annotation
    relation = orjson.loads(pdu)["content"]["m.relates_to"]
    if event_type != safe(draft.type) or relation.get("key") != draft.content["m.relates_to"].get("key"):
        return False
    return (device_id, txn_id) != (draft.device_id, None if draft.txn_id is None else safe(draft.txn_id))
