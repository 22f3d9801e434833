"""POST /search: what was found, with what surrounds it.

Source: client-server API, "Server Side Search".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson
from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.safe_text import safe, unsafe
from eventlog.tokens import TimelineToken
from matrix.visibility import is_content_withheld
from readers.follower import wait_until_current
from readers.rooms.access import NOW, Access
from readers.rooms.parameters import Parameters
from readers.rooms.responses import JSON, join, quoted
from readers.rooms.rows import Row
from readers.rooms.timeline import Timelines, visible
from readers.search.finding import Finder, Found, Hit
from readers.search.projection import KEYS, SQL, SearchProjection, words_of
from readers.search.request import Context, Criteria, parse_criteria

FRESH_SECONDS: Final = 2.0
"""How long a search waits for the index to have taken in what was said before it. Then it answers from what there is."""
MOST_AROUND: Final = 1_000
"""Events shown around results, shared among them."""

_MARKED = re.compile("\ue000(.*?)\ue001", re.DOTALL)

Around = tuple[list[Row], list[Row]]


class Search:
    """POST /search."""

    def __init__(self, timelines: Timelines, language: str) -> None:
        self._timelines = timelines
        self._language = language
        self._finder = Finder(timelines, language)

    async def on_post(self, req: Request, resp: Response) -> None:
        """What the user finds, a page at a time."""
        criteria = parse_criteria(await req.get_media(), Parameters(req).text("next_batch"))
        resp.content_type = JSON
        if criteria is None:
            resp.data = b'{"search_categories":{}}'
            return
        session = req.context.session
        async with self._timelines.pool.connection() as connection:
            await wait_until_current(connection, SearchProjection.name, FRESH_SECONDS)
            found = await self._finder.find(connection, session.user_id, criteria)
            resp.data = await self._answer(connection, criteria, found, session.device_id)

    async def _answer(
        self, connection: AsyncConnection, criteria: Criteria, found: Found, device_id: str | None
    ) -> bytes:
        accesses = {hit.access.room_id: hit.access for hit in found.hits}
        around: list[Around] = [([], []) for _ in found.hits]
        profiles: list[dict[str, Any]] = [{} for _ in found.hits]
        if criteria.context is not None and found.hits:
            around = await self._around(connection, criteria.context, found.hits)
            if criteria.context.include_profile:
                profiles = await _profiles(connection, found.hits, around)
        states: dict[str, list[Row]] = {}
        if criteria.include_state and found.hits:
            states = await _states(connection, list(accesses.values()), criteria, found.hits)
        forms: dict[str, bytes] = {}
        for room_id, access in accesses.items():
            rows = {
                row.event_id: row
                for hit, (before, after) in zip(found.hits, around, strict=True)
                if hit.access is access
                for row in (hit.row, *before, *after)
            }
            rows |= {row.event_id: row for row in states.get(room_id, ())}
            rendered = await self._timelines.render(connection, access, list(rows.values()), device_id)
            forms.update(zip(rows, rendered, strict=True))
        results = []
        for hit, (before, after), profile in zip(found.hits, around, profiles, strict=True):
            parts = [b'{"rank":%b,"result":%b' % (orjson.dumps(hit.rank), forms[hit.row.event_id])]
            if criteria.context is not None:
                parts.append(_context(hit, before, after, forms))
                if criteria.context.include_profile:
                    parts.append(b',"profile_info":%b' % orjson.dumps(profile))
                parts.append(b"}")
            results.append(b"%b}" % b"".join(parts))
        highlights = await self._highlights(connection, criteria, found.hits)
        members = [
            b'"count":%d' % found.count,
            b'"highlights":%b' % orjson.dumps(highlights),
            b'"results":%b' % join(results),
        ]
        if criteria.include_state:
            of_rooms = (
                b"%b:%b" % (quoted(room_id), join(forms[row.event_id] for row in rows))
                for room_id, rows in states.items()
            )
            members.append(b'"state":{%b}' % b",".join(of_rooms))
        if criteria.groups:
            members.append(b'"groups":%b' % orjson.dumps(_groups(criteria, found)))
        if found.end is not None:
            members.append(b'"next_batch":%b' % quoted(str(found.end)))
        return b'{"search_categories":{"room_events":{%b}}}' % b",".join(members)

    async def _around(self, connection: AsyncConnection, context: Context, hits: Sequence[Hit]) -> list[Around]:
        """The visible events before and after each hit, the nearest first."""
        most = max(1, MOST_AROUND // len(hits))
        parameters = {
            "rooms": [hit.access.nid for hit in hits],
            "timelines": [hit.row.timeline for hit in hits],
            "before": min(context.before, most),
            "after": min(context.after, most),
        }
        around: list[Around] = [([], []) for _ in hits]
        for i, before, *columns in await (await connection.execute(SQL["around"], parameters)).fetchall():
            around[i - 1][0 if before else 1].append(Row(columns))
        shown: list[Around] = []
        for hit, (before, after) in zip(hits, around, strict=True):
            await self._timelines.learn_lines(connection, hit.access, [*before, *after])
            shown.append((visible(hit.access, before), visible(hit.access, after)))
        return shown

    async def _highlights(self, connection: AsyncConnection, criteria: Criteria, hits: Sequence[Hit]) -> list[str]:
        """The words that were found, as they stand in the events."""
        bodies = [words_of(hit.row.type, hit.row.content) for hit in hits if hit.row.type in KEYS]
        parameters = {
            "language": self._language,
            "term": criteria.term,
            "bodies": [body for body in bodies if body],
        }
        if not parameters["bodies"]:
            return []
        rows = await (await connection.execute(SQL["headlines"], parameters)).fetchall()
        return sorted({word.lower() for (marked,) in rows for word in _MARKED.findall(marked)})


def _context(hit: Hit, before: list[Row], after: list[Row], forms: dict[str, bytes]) -> bytes:
    """The member `context`, left open for more."""
    first = before[-1] if before else hit.row
    last = after[-1] if after else hit.row
    return b',"context":{"start":%b,"end":%b,"events_before":%b,"events_after":%b' % (
        quoted(str(TimelineToken(first.timeline - 1))),
        quoted(str(TimelineToken(last.timeline))),
        join(forms[row.event_id] for row in before),
        join(forms[row.event_id] for row in after),
    )


def _groups(criteria: Criteria, found: Found) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    for key in criteria.groups:
        of_key: dict[str, Any] = groups.setdefault(key, {})
        last: dict[str, Hit] = {}
        for hit in found.hits:
            value = hit.access.room_id if key == "room_id" else hit.row.sender
            group = of_key.setdefault(value, {"order": len(of_key) + 1, "results": []})
            group["results"].append(hit.row.event_id)
            last[value] = hit
        if found.end is not None:
            for value, hit in last.items():
                of_key[value]["next_batch"] = str(hit.place(criteria.by_rank, found.count, key, value))
    return groups


async def _profiles(connection: AsyncConnection, hits: Sequence[Hit], around: Sequence[Around]) -> list[dict[str, Any]]:
    """By hit, the profiles that the senders of the events shown had in the room at the hit."""
    wanted = [
        (number, sender)
        for number, (hit, (before, after)) in enumerate(zip(hits, around, strict=True))
        for sender in dict.fromkeys(row.sender for row in (hit.row, *before, *after))
    ]
    parameters = {
        "rooms": [hits[number].access.nid for number, _ in wanted],
        "at": [hits[number].row.position for number, _ in wanted],
        "users": [safe(sender) for _, sender in wanted],
    }
    profiles: list[dict[str, Any]] = [{} for _ in hits]
    for i, user_id, pdu, redacted, erased in await (await connection.execute(SQL["members"], parameters)).fetchall():
        hit = hits[wanted[i - 1][0]]
        # Who was not there finds of erased users no more than that they said something.
        hidden = is_content_withheld(sender_is_erased=erased, membership=hit.access.membership_after(hit.row))
        content = {} if redacted or hidden else orjson.loads(pdu)["content"]
        profile = {name: content.get(name) for name in ("displayname", "avatar_url")}
        profiles[wanted[i - 1][0]][unsafe(user_id)] = {
            name: value for name, value in profile.items() if isinstance(value, str)
        }
    return profiles


async def _states(
    connection: AsyncConnection, accesses: Sequence[Access], criteria: Criteria, hits: Sequence[Hit]
) -> dict[str, list[Row]]:
    """The state of rooms as the user reads it, of lazily loaded members those who sent a result."""
    parameters = {
        "rooms": [access.nid for access in accesses],
        "at": [min(access.reads_at(), NOW - 1) for access in accesses],
    }
    senders = {safe(hit.row.sender) for hit in hits} if criteria.wanted.lazy_load_members else None
    states: dict[str, list[Row]] = {access.room_id: [] for access in accesses}
    for i, *columns in await (await connection.execute(SQL["states"], parameters)).fetchall():
        row = Row(columns)
        if senders is None or row.type != "m.room.member" or row.state_key in senders:
            states[accesses[i - 1].room_id].append(row)
    return states
