"""Rooms as the tables tell them, as of positions: whatever the caches cannot answer.

Invariant: a handful of queries for all rooms together, never one per room; and nothing in an answer is younger than the position
asked for, so that it can stand beside what the caches say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from eventlog.safe_text import like, safe
from matrix.events import Event
from matrix.filters import RoomEventFilter
from matrix.room_versions import RoomVersion
from matrix.visibility import history_visibility_of, is_content_withheld, is_visible, user_may_see
from readers.bundles import Parent, Reader, is_edit, read_bundles
from readers.rendering import MEMBERSHIPS
from readers.rooms.access import Span, open_spans
from readers.sync.events import Events
from readers.sync.feed import SQL
from readers.sync.members import HEROES, Hero, heroes_of
from readers.sync.outputs import Output
from readers.sync.request import Shape
from readers.sync.rooms import Receipt, Rooms
from readers.sync.sessions import Session
from readers.sync.users import User
from readers.sync.views import History, RoomAsk, RoomView

MOST_LOOKED_AT: Final = 2_000
"""Events of a room looked at for those that a filter lets through."""


class Tables:
    """Reads rooms for one user's response."""

    def __init__(
        self,
        connection: AsyncConnection,
        rooms: Rooms,
        events: Events,
        user: User,
        session: Session,
        shape: Shape,
        device_id: str,
    ) -> None:
        self._connection = connection
        self._rooms = rooms
        self._events = events
        self._user = user
        self._session = session
        self._shape = shape
        self._device_id = device_id
        self.told: dict[int, set[str]] = {}
        """Whose member events the device has afterwards, by room."""

    async def read(self, asks: list[RoomAsk]) -> list[RoomView]:
        """The rooms asked for, in order."""
        views = [RoomView(ask) for ask in asks]
        if not views:
            return views
        await self._events.know_versions(self._connection, [ask.nid for ask in asks])
        await self._read_timelines(views)
        await self._read_summaries(views)
        await self._read_states(views)
        await self._read_receipts(views)
        return views

    async def _query(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        cursor = await self._connection.execute(SQL[query], parameters)
        return await cursor.fetchall()

    async def _fetch(self, entries: Iterable[int]) -> dict[int, Output]:
        return await self._events.fetch(self._connection, entries)

    async def _read_timelines(self, views: list[RoomView]) -> None:
        chosen, limit = self._shape.filter.room.timeline, self._shape.limit
        wanted = [view for view in views if not chosen.takes_nothing and chosen.takes_room(view.ask.room_id)]
        # What is dropped here and not by the query is asked for beyond the limit, so that the rest fills it.
        most = limit + 1 if chosen.contains_url is None and not self._user.ignored else limit * 3 + 1
        found = await self._newest(wanted, chosen, most)
        histories = await self._histories(
            [(v, f) for v, f in zip(wanted, found, strict=True) if f and _needs_history(v.ask, f)]
        )
        for view in views:
            view.prev_batch = view.ask.upto
            view.limited |= view.ask.fresh
        for view, newest_first in zip(wanted, found, strict=True):
            history = histories.get(view.ask.nid)
            view.limited |= len(newest_first) == most
            for output in newest_first:
                word = self._membership(view.ask, output, history)
                if history is not None and not self._may_see(output, history):
                    # What lies before is told by `state`: a timeline with a hole would lose the state changes in it.
                    view.limited = True
                    break
                if self._is_dropped(output, chosen):
                    continue
                if len(view.timeline) == limit:
                    view.limited = True
                    break
                view.timeline.append((output, word))
            view.timeline.reverse()
            if view.timeline:
                view.prev_batch = (view.timeline[0][0].timeline or 1) - 1
        await self._withhold(wanted)
        await self._read_bundles(wanted, histories)

    async def _read_bundles(self, views: list[RoomView], histories: dict[int, History]) -> None:
        """What relates to messages, "when the relevant section has a limited value of true": otherwise the client has seen it."""
        if self._shape.filter.event_format != "client":
            return
        parents: list[Parent] = []
        spans: list[Span] = []
        bundled = []
        for view in views:
            ask = view.ask
            of_room = [
                Parent(ask.nid, o.event_id, o.sender, o.type, o.redaction is None and not is_edit(o.json))
                for o, _ in view.timeline
                if o.state_key is None
            ]
            if not view.limited or not of_room:
                continue
            bundled.append(view)
            parents += of_room
            history = histories.get(ask.nid)
            if history is None:
                spans.append(Span(ask.nid, upto=ask.upto))
            else:
                spans += open_spans(
                    ask.nid, history.memberships, history.visibilities, history.joined_until, upto=ask.upto
                )
        if not parents:
            return
        strange = [view.ask.nid for view in bundled if view.ask.nid in histories]
        reader = Reader(self._user.user_id, self._device_id, spans, self._user.ignored, strange)
        bundles = await read_bundles(self._connection, reader, parents)
        if bundles:
            for view in bundled:
                view.bundles = bundles

    async def _withhold(self, views: list[RoomView]) -> None:
        """Redacts what erased users said while the user was not there; asks only where something is from such a time."""
        outside = {output.sender for view in views for output, word in view.timeline if word != "join"}
        if not outside:
            return
        erased = {user_id for (user_id,) in await self._query("erased", user_ids=list(outside))}
        if not erased:
            return
        for view in views:
            view.timeline = [
                (output.withheld(version), word)
                if is_content_withheld(sender_is_erased=output.sender in erased, membership=word)
                and (version := self._version(output)) is not None
                else (output, word)
                for output, word in view.timeline
            ]

    async def _newest(self, views: list[RoomView], chosen: RoomEventFilter, most: int) -> list[list[Output]]:
        """The newest timeline entries of rooms, newest first, from the caches where they reach back far enough."""
        found: list[list[Output] | None] = [None] * len(views)
        if chosen.takes_all_events:
            for number, view in enumerate(views):
                room = self._rooms.get(view.ask.nid)
                if room is not None:
                    found[number] = room.newest(view.ask.after, view.ask.upto, most)
        await self._events.check(self._connection, [output for entries in found for output in entries or ()])
        lacking = [number for number, entries in enumerate(found) if entries is None]
        if lacking:
            rows = await self._query(
                "timelines" if chosen.takes_all_events else "filtered_timelines",
                rooms=[views[number].ask.nid for number in lacking],
                after=[views[number].ask.after for number in lacking],
                upto=[views[number].ask.upto for number in lacking],
                most=most,
                **({} if chosen.takes_all_events else _sql_filter(chosen)),
            )
            events = await self._fetch(dict.fromkeys(row[2] for row in rows if row[2] is not None))
            for i, _, entry in rows:
                number = lacking[i - 1]
                of_room = found[number] = found[number] or []
                if entry is None:
                    views[number].limited = True
                elif entry in events:
                    of_room.append(events[entry])
        return [entries or [] for entries in found]

    def _is_dropped(self, output: Output, chosen: RoomEventFilter) -> bool:
        if output.state_key is None and output.sender in self._user.ignored:
            # "Servers must not send … events sent by ignored users"; their state events are still sent.
            return True
        return not chosen.takes_url(output.has_url)

    def _membership(self, ask: RoomAsk, output: Output, history: History | None) -> str:
        """The user's membership at the event, "including any changes caused by the event" (MSC4115)."""
        if history is not None:
            return history.memberships.after(output.position, output.line, history.bases.get(output.line, 0))
        if ask.left and output.type == "m.room.member" and output.state_key == self._user.user_id:
            changed = output.notes.get("members") or []
            return next((MEMBERSHIPS[new] for user_id, new, _ in changed if user_id == self._user.user_id), "leave")
        return "join"

    def _may_see(self, output: Output, history: History) -> bool:
        """History visibility, by the state before the event on its own line."""
        base = history.bases.get(output.line)
        if base is None:
            return False
        before = output.position - 1
        membership = history.memberships.after(before, output.line, base)
        visibility = history.visibilities.after(before, output.line, base)
        joined_since = before < history.joined_until
        if is_visible(visibility, membership, joined_since=joined_since):
            return True
        if output.type not in ("m.room.member", "m.room.history_visibility"):
            return False
        event = self._event(output)
        return event is not None and user_may_see(
            event, self._user.user_id, visibility=visibility, membership=membership, joined_since=joined_since
        )

    def _event(self, output: Output) -> Event | None:
        version = self._version(output)
        return None if version is None else Event.from_pdu(orjson.loads(output.json), version, output.event_id)

    def _version(self, output: Output) -> RoomVersion | None:
        return self._events.versions.get(output.room or 0)

    async def _histories(self, found: list[tuple[RoomView, list[Output]]]) -> dict[int, History]:
        """What decides on visibility in rooms whose timeline reaches back before the user's stay, or off the main line."""
        if not found:
            return {}
        rooms = [view.ask.nid for view, _ in found]
        histories = {nid: History() for nid in rooms}
        for i, line, start, end, letter, _ in await self._query(
            "key_history", rooms=rooms, type="m.room.member", state_key=self._user.user_id
        ):
            histories[rooms[i - 1]].memberships.add(line, start, end, MEMBERSHIPS.get(letter, "leave"))
        rows = await self._query("key_history", rooms=rooms, type="m.room.history_visibility", state_key="")
        events = await self._fetch({row[5] for row in rows if row[5] is not None})
        for i, line, start, end, _, entry in rows:
            event = self._event(events[entry]) if entry in events else None
            histories[rooms[i - 1]].visibilities.add(line, start, end, history_visibility_of(event))
        lines = [(view.ask.nid, line) for view, outputs in found for line in {o.line for o in outputs if o.line}]
        if lines:
            for i, line, base in await self._query(
                "lines", rooms=[nid for nid, _ in lines], lines=[line for _, line in lines]
            ):
                histories[lines[i - 1][0]].bases[line] = base
        for history in histories.values():
            history.joined_until = history.memberships.end_of_last("join")
        return histories

    async def _read_summaries(self, views: list[RoomView]) -> None:
        asked = [view for view in views if view.ask.known is None or _changes_members(view)]
        asked = [view for view in asked if not view.ask.left]
        if not asked:
            return
        rooms, at = [view.ask.nid for view in asked], [view.ask.upto for view in asked]
        for i, joined, invited in await self._query("summaries", rooms=rooms, at=at):
            asked[i - 1].joined, asked[i - 1].invited = joined, invited
        first: list[list[Hero]] = [[] for _ in asked]
        for i, *hero in await self._query("heroes", rooms=rooms, at=at, user_id=self._user.user_id, most=HEROES):
            first[i - 1].append(Hero(*hero))
        for view, of_room in zip(asked, first, strict=True):
            view.heroes = heroes_of(of_room, self._user.user_id)

    async def _read_states(self, views: list[RoomView]) -> None:
        chosen = self._shape.filter.room.state
        views = [view for view in views if chosen.takes_room(view.ask.room_id) and not chosen.takes_nothing]
        lazy = chosen.lazy_load_members
        rows: list[tuple[RoomView, str, str, int, int]] = []
        whole = [view for view in views if view.ask.known is None]
        if whole:
            for i, *row in await self._query(
                "states",
                rooms=[view.ask.nid for view in whole],
                at=[self._state_position(view) for view in whole],
                members=not lazy,
            ):
                rows.append((whole[i - 1], *row))
        since = [view for view in views if view.ask.known is not None and view.ask.known < self._state_position(view)]
        if since:
            for i, *row in await self._query(
                "state_changes",
                rooms=[view.ask.nid for view in since],
                after=[view.ask.known for view in since],
                at=[self._state_position(view) for view in since],
            ):
                rows.append((since[i - 1], *row))
        if lazy:
            rows += await self._wanted_members(
                views, {(row[0].ask.nid, row[2]) for row in rows if row[1] == "m.room.member"}
            )
        resolved = (
            [] if self._shape.state_after else [v for v in views if any("state" in o.notes for o, _ in v.timeline)]
        )
        moved: set[tuple[int, int]] = set()
        if resolved:
            for i, *row in await self._query(
                "state_changes",
                rooms=[view.ask.nid for view in resolved],
                after=[self._state_position(view) for view in resolved],
                at=[view.ask.upto for view in resolved],
            ):
                rows.append((resolved[i - 1], *row))
                moved.add((resolved[i - 1].ask.nid, row[3]))
        events = await self._fetch(dict.fromkeys(row[4] for row in rows))
        for view, _, _, valid_from, entry in rows:
            output = events.get(entry)
            if output is None or ((view.ask.nid, entry) in moved and output.position == valid_from):
                # Within the timeline only what a resolution changed is told beside it: the rest is in it.
                continue
            if chosen.matches_in_room(view.ask.room_id, output.type, output.sender, output.has_url):
                view.state.append(output)

    def _state_position(self, view: RoomView) -> int:
        """As of which position the state is told: before the first event of the timeline, or after the last."""
        if self._shape.state_after or not view.timeline:
            return view.ask.upto
        return (view.timeline[0][0].timeline or 1) - 1

    async def _wanted_members(
        self, views: list[RoomView], present: set[tuple[int, str]]
    ) -> list[tuple[RoomView, str, str, int, int]]:
        """Member events of those who sent what is in the timeline, of the user and of the heroes, unless the device has them."""
        asked: list[tuple[RoomView, str]] = []
        for view in views:
            nid = view.ask.nid
            users = {output.sender for output, _ in view.timeline}
            if view.ask.known is None:
                users.add(self._user.user_id)
                users.update(view.heroes or ())
            elif not self._shape.filter.room.state.include_redundant_members:
                users = self._session.unknown(nid, users)
            if view.heroes and view.ask.known is not None:
                users |= self._session.unknown(nid, view.heroes)
            asked += [(view, user_id) for user_id in users if (nid, user_id) not in present]
            self.told[nid] = users
        if not asked:
            return []
        rows = await self._query(
            "members",
            rooms=[view.ask.nid for view, _ in asked],
            at=[self._state_position(view) for view, _ in asked],
            users=[user_id for _, user_id in asked],
        )
        return [(asked[i - 1][0], *row) for i, *row in rows]

    async def _read_receipts(self, views: list[RoomView]) -> None:
        asked = [view for view in views if view.ask.receipts_after is not None and not view.ask.left]
        if not asked or not self._shape.filter.room.ephemeral.takes_type("m.receipt"):
            return
        for i, *row in await self._query(
            "receipts",
            rooms=[view.ask.nid for view in asked],
            after=[view.ask.receipts_after for view in asked],
            upto=[view.ask.upto for view in asked],
            user_id=self._user.user_id,
        ):
            asked[i - 1].receipts.append(Receipt(*row))


def _needs_history(ask: RoomAsk, newest_first: list[Output]) -> bool:
    """Whether the timeline may hold events from before the user's stay, or with a state of their own."""
    oldest = newest_first[-1].timeline or 0
    return ask.joined_at is None or oldest < ask.joined_at or any(output.line for output in newest_first)


def _changes_members(view: RoomView) -> bool:
    return view.limited or any("members" in output.notes for output, _ in view.timeline)


def _sql_filter(chosen: RoomEventFilter) -> dict[str, Any]:
    return {
        "scan": MOST_LOOKED_AT,
        "types": None if chosen.types is None else [like(kind) for kind in chosen.types],
        "not_types": [like(kind) for kind in chosen.not_types] if chosen.not_types else None,
        "senders": None if chosen.senders is None else [safe(sender) for sender in chosen.senders],
        "not_senders": [safe(sender) for sender in chosen.not_senders] if chosen.not_senders else None,
    }
