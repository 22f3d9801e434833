"""One response to one request: planned, read where the caches do not reach, and put together.

Invariant: a plan is made without waiting, so all of it is as of the same positions, and the token that goes out names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import lt
from typing import Any, Final

from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.safe_text import safe, unsafe
from eventlog.tokens import SyncToken
from readers.sync import response
from readers.sync.account_data import render_account_data
from readers.sync.current import Current
from readers.sync.device_lists import NOTHING, DeviceLists, device_lists, everybody
from readers.sync.feed import SQL
from readers.sync.inbox import SQL as DEVICES
from readers.sync.inbox import delivery
from readers.sync.incremental import Plan, plan_incremental, plan_initial
from readers.sync.invites import render_invites
from readers.sync.members import load
from readers.sync.position import Place
from readers.sync.presence import Presence, read_presences, render_presences
from readers.sync.reading import read
from readers.sync.request import Shape, SyncRequest
from readers.sync.sections import Renderer
from readers.sync.sessions import Session
from readers.sync.tables import Tables
from readers.sync.users import AccountData, Change, User
from readers.sync.views import RoomView

MOST_LOADS: Final = 2
"""Rooms whose members are brought at hand one by one; where more are lacking, all are read from the tables at once."""

Positions = tuple[int, ...]
Invites = tuple[list[bytes], list[bytes]]


class Answers:
    """Makes responses as of the applied positions; `token` gives their token."""

    def __init__(
        self, current: Current, pool: Pool, primary: Pool, token: Callable[[], str], *, with_presence: bool = False
    ) -> None:
        """`primary` knows how many keys a device has left; `pool` may be a standby's."""
        self._primary = primary
        self._current = current
        self._with_presence = with_presence
        self._pool = pool
        self._token = token

    async def answer(
        self, user: User, session: Session, request: SyncRequest, place: Place
    ) -> tuple[Positions, bytes | None, bool]:
        """As of which positions the response is, the response if there is something to say, and whether messages that have
        arrived at the device are still in the table."""
        shape, since = request.shape, place.positions
        # What the caches know of the user's own memberships and account data reaches back to the token.
        known = since is not None and not any(map(lt, since, user.floors))
        full = since is None or place.anew or request.full_state
        plan, token, changes = await self._plan(user, session, request, place, known, full)
        device = safe(request.device_id)
        messages = await delivery(self._pool, user, device, place.inbox or since, plan.now)
        if messages.upto is not None:
            token = str(replace(SyncToken.parse(token), inbox=messages.upto))
        lists = await self._lists(user, place, changes)
        stocks = user.stocks if user.stocks is not None else await self.count_stocks(user)
        restocked = since is not None and (at := user.stock_changed.get(device)) is not None and at[1] > since[at[0]]
        # What an abandoned future said of account data is not known: all that there is is told.
        told_upto = None if place.anew else since
        account_data = [a for a in user.account_data if told_upto is not None and a.position > told_upto[a.shard]]
        presences = self._presences(user, shape, told_upto, plan)
        await self._current.unread.bases.prepare(
            self._pool, [recent.nid for recent in plan.recent if recent.timeline and recent.nid in user.unread]
        )
        uncounted = self._uncounted(user, plan)
        views: list[RoomView] = []
        invites: Invites = ([], [])
        members: dict[int, set[str]] = {}
        at_hand = known and not place.anew
        if not at_hand or plan.asks or plan.invites or uncounted:
            views, account_data, invites, members = await self._read(
                user, session, shape, request.device_id, plan, told_upto, at_hand, account_data, uncounted
            )
        if presences is None:
            # Whoever is new to a room, or here, is told of everybody; also of who is offline, if they may have been told otherwise
            # while they shared another room.
            joined = told_upto is not None and _has_joined(user, told_upto)
            upto = None if joined else told_upto
            presences = await read(self._pool, partial(read_presences, user.user_id, upto, plan.now, joined))
        present = render_presences(presences, shape.filter.presence, user.ignored)
        for recent in plan.recent:
            if recent.told:
                members[recent.nid] = recent.told
        sections = Renderer(user, request.device_id, shape).render(plan, views, account_data, full)
        told = render_account_data(user.user_id, account_data, shape.filter.account_data, whole=told_upto is None)
        news = sections.join or sections.leave or told or present or invites[0] or invites[1]
        if not (full or news or messages.events or lists or restocked):
            return plan.now, None, messages.arrived
        session.answer(token, members)
        if messages.first is not None:
            session.first_message = messages.first
        body = response.whole(
            token,
            join=sections.join,
            leave=sections.leave,
            invite=invites[0],
            knock=invites[1],
            account_data=told,
            presence=present,
            to_device=messages.events,
            changed=lists.changed,
            left=lists.left,
            stock=stocks.get(device, response.NO_STOCK),
        )
        return plan.now, body, messages.arrived

    async def count_stocks(self, user: User) -> dict[str, bytes]:
        """Counts the keys that a user's devices have left; `User.stocks` has them unless they have changed meanwhile."""
        changes = user.stock_changes
        rows = await read(self._primary, partial(_stock_rows, user.user_id))
        found: dict[str, tuple[dict[str, int], list[str]]] = {}
        for device_id, algorithm, count, fallback in rows:
            counts, unused = found.setdefault(device_id, ({}, []))
            if fallback:
                unused.append(unsafe(algorithm))
            else:
                counts[unsafe(algorithm)] = count
        stocks = {device_id: response.stock_members(*stock) for device_id, stock in found.items()}
        if user.stock_changes == changes:
            user.stocks = stocks
        return stocks

    async def _lists(self, user: User, place: Place, changes: list[Change]) -> DeviceLists:
        if place.anew:
            return await everybody(self._pool, user.user_id)
        if place.positions is None:
            return NOTHING
        return await device_lists(self._pool, user, place.positions, changes)

    def _presences(self, user: User, shape: Shape, since: Positions | None, plan: Plan) -> list[Presence] | None:
        """Whose presence changed since positions and as of the plan's; None if the table has to be asked."""
        if not self._with_presence or shape.filter.presence.takes_nothing:
            return []
        if since is None or any(map(lt, since, user.heard_since)) or _has_joined(user, since):
            return None
        changed = user.presences.values()
        return [one for one in changed if since[one.shard] < one.position <= plan.now[one.shard]]

    async def _plan(
        self, user: User, session: Session, request: SyncRequest, place: Place, known: bool, full: bool
    ) -> tuple[Plan, str, list[Change]]:
        current, since = self._current, place.positions
        older: list[Change] = []
        after = since
        if since is not None and not known:
            after = tuple(current.positions)
            older = await self._read_changes(user, since, after)
        may_load = True
        while True:
            now, token = tuple(current.positions), self._token()
            changes = older if after is None else older + [c for c in user.changes if c.position > after[c.shard]]
            if full or since is None:
                plan = plan_initial(current, user, request.shape, now, since, changes, timelines_anew=place.anew)
                return plan, token, changes
            plan = plan_incremental(current, user, session, request.shape, now, since, changes, may_load=may_load)
            if not plan.lacking:
                return plan, token, changes
            may_load = False
            if len(plan.lacking) <= MOST_LOADS:
                for lacking in plan.lacking:
                    await load(self._pool, current.events, lacking, now[lacking.shard])

    async def _read_changes(self, user: User, since: Positions, now: Positions) -> list[Change]:
        parameters = {"user_id": user.user_id, "since": list(since), "now": list(now)}

        async def changes(connection: AsyncConnection) -> list[Change]:
            return [
                Change(*row)
                for row in await (await connection.execute(SQL["membership_changes"], parameters)).fetchall()
            ]

        return await read(self._pool, changes)

    def _uncounted(self, user: User, plan: Plan) -> dict[int, tuple[int, int]]:
        """The rooms of a plan whose unread counts take asking the tables, as `Unread.count` takes them."""
        found: dict[int, tuple[int, int]] = {}
        rooms = [recent.nid for recent in plan.recent] + [ask.nid for ask in plan.asks if not ask.left]
        for nid in rooms:
            stay = user.rooms[nid]
            if not self._current.unread.ready(user, nid, stay.shard, self._current.positions[stay.shard]):
                found[nid] = (plan.now[stay.shard], stay.joined_at or 0)
        return found

    async def _read(
        self,
        user: User,
        session: Session,
        shape: Shape,
        device_id: str,
        plan: Plan,
        since: Positions | None,
        known: bool,
        account_data: list[AccountData],
        uncounted: dict[int, tuple[int, int]],
    ) -> tuple[list[RoomView], list[AccountData], Invites, dict[int, set[str]]]:
        async def from_tables(
            connection: AsyncConnection,
        ) -> tuple[list[RoomView], list[AccountData], Invites, dict[int, set[str]]]:
            current = self._current
            tables = Tables(connection, current.rooms, current.events, user, session, shape, device_id)
            views = await tables.read(plan.asks)
            invites = await render_invites(connection, current.events, user, plan.invites, plan.now)
            await current.unread.count(connection, user, uncounted)
            whole = [ask.room_id for ask in plan.asks if ask.known is None]
            if known and not whole:
                return views, account_data, invites, tables.told
            query = "account_data"
            parameters: dict[str, Any] = {"since": None if since is None else list(since)}
            if known:
                query, parameters = "account_data_of_rooms", {"room_ids": whole}
            cursor = await connection.execute(
                SQL[query], {"user_id": user.user_id, "now": list(plan.now), **parameters}
            )
            found = [
                AccountData(shard, position, room_id, kind, content.encode())
                for shard, position, room_id, kind, content in await cursor.fetchall()
            ]
            return views, [*account_data, *found] if known else found, invites, tables.told

        return await read(self._pool, from_tables)


async def _stock_rows(user_id: str, connection: AsyncConnection) -> list[tuple[Any, ...]]:
    return await (await connection.execute(DEVICES["stocks"], {"user_id": user_id})).fetchall()


def _has_joined(user: User, since: Positions) -> bool:
    """Whether the user has joined a room since positions."""
    return any(
        change.new == "j" and change.old != "j" and change.position > since[change.shard] for change in user.changes
    )
