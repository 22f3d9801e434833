"""What changed for a user since a token: which rooms the caches can tell, which the tables must.

Invariant: a plan is made in one go, without waiting, so that everything in it is as of the same positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from readers.sync.current import Current
from readers.sync.members import Lacking, heroes_of
from readers.sync.outputs import Output
from readers.sync.request import Shape
from readers.sync.rooms import Receipt, Room, Typing
from readers.sync.sessions import Session
from readers.sync.users import Change, Stay, User
from readers.sync.views import RoomAsk

Positions = tuple[int, ...]

MOST_GONE: Final = 500
"""Rooms that a client of an abandoned future is told it is not in."""


@dataclass(slots=True)
class Recent:
    """A room whose news the caches hold."""

    nid: int
    room: Room
    timeline: list[Output]
    receipts: list[Receipt]
    members: list[Output] = field(default_factory=list)
    """Member events that the device lacks."""
    told: set[str] = field(default_factory=set)
    """Whose member events the device has afterwards."""
    joined: int | None = None
    invited: int | None = None
    heroes: list[str] | None = None


@dataclass(slots=True)
class Plan:
    """What an answer consists of. `asks` are for the tables; `invites` holds invites and knocks."""

    now: Positions
    recent: list[Recent] = field(default_factory=list)
    asks: list[RoomAsk] = field(default_factory=list)
    invites: dict[int, Stay] = field(default_factory=dict)
    typing: dict[int, list[str]] = field(default_factory=dict)
    """Who types, by room in which that is news."""
    lacking: list[Lacking] = field(default_factory=list)
    """What has to be brought at hand before the caches can tell; the plan is then made again."""


def plan_initial(
    current: Current,
    user: User,
    shape: Shape,
    now: Positions,
    since: Positions | None,
    changes: list[Change],
    *,
    timelines_anew: bool = False,
) -> Plan:
    """Everything: rooms joined with their whole state, invites and knocks; rooms left if the filter includes them or, with a
    token, those left since. With `since` (full_state) timelines begin there.

    With `timelines_anew` the client comes from an abandoned future: timelines are limited, so that it drops its own, and rooms
    that it may believe to be in are told as left, the latest of them.
    """
    plan = Plan(now)
    gone: list[tuple[int, Stay]] = []
    changed = {change.nid for change in changes}
    declined = {change.nid for change in changes if change.old in ("i", "k")}
    for nid, stay in user.rooms.items():
        if not shape.filter.room.takes_room(stay.room_id):
            continue
        upto = now[stay.shard]
        if stay.membership == "j":
            after = 0 if since is None or nid in changed or timelines_anew else since[stay.shard]
            ask = RoomAsk(nid, stay.room_id, stay.shard, after, upto, None, stay.joined_at, fresh=timelines_anew)
            plan.asks.append(ask)
            if (
                (room := current.rooms.get(nid)) is not None
                and room.typing is not None
                and (users := room.typing.users())
            ):
                plan.typing[nid] = users
        elif stay.membership in "ik":
            plan.invites[nid] = stay
        elif stay.left_at is not None and (
            (shape.filter.room.include_leave and not stay.forgotten)
            or (nid in changed and (since is None or stay.left_at > since[stay.shard]))
        ):
            plan.asks.append(_left(nid, stay, 0, stay.left_at, None))
        elif nid in declined:
            plan.asks.append(replace(_gone(nid, stay), fresh=False))
        elif timelines_anew:
            gone.append((nid, stay))
    gone.sort(key=lambda room: room[1].position, reverse=True)
    plan.asks += [_gone(nid, stay) for nid, stay in gone[:MOST_GONE]]
    return plan


def plan_incremental(
    current: Current,
    user: User,
    session: Session,
    shape: Shape,
    now: Positions,
    since: Positions,
    changes: list[Change],
    *,
    may_load: bool = True,
) -> Plan:
    """What happened after `since`. `changes` are the user's membership changes after it, in order per room.

    Without `may_load` nothing is `lacking`: what is not at hand is asked of the tables.
    """
    plan = Plan(now)
    by_room: dict[int, list[Change]] = {}
    for change in changes:
        by_room.setdefault(change.nid, []).append(change)
    takes_room, rooms, floors = shape.filter.room.takes_room, current.rooms, current.rooms.floors
    for nid, stay in user.rooms.items():
        moves = by_room.get(nid)
        if moves is not None and (len(moves) > 1 or moves[0].old != "j" or stay.membership != "j"):
            if takes_room(stay.room_id):
                _plan_move(plan, nid, stay, moves, now, since, rooms.get(nid), session)
            continue
        if stay.membership != "j":
            continue
        shard = stay.shard
        position = since[shard]
        room = rooms.get(nid)
        if room is None:
            if position < floors[shard] and takes_room(stay.room_id):
                plan.asks.append(_delta(nid, stay, position, now))
        elif takes_room(stay.room_id) and (
            room.last > position or (room.typing is not None and room.typing.expired_at > session.answered_at)
        ):
            _plan_recent(plan, user, nid, stay, room, position, session, shape, may_load)
    return plan


def _plan_move(
    plan: Plan,
    nid: int,
    stay: Stay,
    moves: list[Change],
    now: Positions,
    since: Positions,
    room: Room | None,
    session: Session,
) -> None:
    """A room in which the user's membership changed, beyond a new profile."""
    shard = stay.shard
    first, position = moves[0].old, since[shard]
    stayed = first == "j" and all(move.new == "j" for move in moves)
    if stay.membership == "j":
        if room is not None and room.typing is not None:
            # Who has just come knows of nobody that they type.
            told = room.typing.users()
            if (stayed and _typing_changed(room.typing, position, session)) or (told and not stayed):
                plan.typing[nid] = told
        if stayed:
            plan.asks.append(_delta(nid, stay, position, now))
        else:
            plan.asks.append(RoomAsk(nid, stay.room_id, shard, 0, now[shard], None, stay.joined_at, fresh=True))
    elif stay.membership in "ik":
        plan.invites[nid] = stay
    elif stay.left_at is not None and stay.left_at > position:
        # The room as it was until the user left, and all of it if the client has not seen the whole stay.
        before = [move for move in moves if move.position < stay.left_at]
        stayed = first == "j" and all(move.new == "j" for move in before)
        if stayed:
            plan.asks.append(_left(nid, stay, position, stay.left_at, position))
        else:
            plan.asks.append(_left(nid, stay, 0, stay.left_at, None, fresh=True))
    elif any(move.old in ("i", "k") for move in moves):
        # Never in it: a rejected or withdrawn invite, also one that came after the token. Its own event is all there is to see.
        plan.asks.append(replace(_gone(nid, stay), fresh=False))


def _left(nid: int, stay: Stay, after: int, upto: int, known: int | None, *, fresh: bool = False) -> RoomAsk:
    return RoomAsk(
        nid,
        stay.room_id,
        stay.shard,
        after,
        upto,
        known,
        stay.joined_at,
        fresh=fresh,
        left=True,
        receipts_after=None,
    )


def _gone(nid: int, stay: Stay) -> RoomAsk:
    """That the user is not in a room, by the event that says so alone."""
    ask = _left(nid, stay, stay.position - 1, stay.position, stay.position, fresh=True)
    return replace(ask, joined_at=stay.position)


def _delta(nid: int, stay: Stay, position: int, now: Positions) -> RoomAsk:
    return RoomAsk(
        nid, stay.room_id, stay.shard, position, now[stay.shard], position, stay.joined_at, receipts_after=position
    )


def _plan_recent(
    plan: Plan,
    user: User,
    nid: int,
    stay: Stay,
    room: Room,
    position: int,
    session: Session,
    shape: Shape,
    may_load: bool,
) -> None:
    timeline, receipts = room.after(position), room.receipts_after(position)
    if room.typing is not None and _typing_changed(room.typing, position, session):
        plan.typing[nid] = room.typing.users()
    if timeline is not None and receipts is not None and len(timeline) <= shape.limit:
        recent, lacking = Recent(nid, room, timeline, receipts), Lacking(nid, room.shard, room.members)
        if _take_members(recent, lacking, user.user_id, position, session, shape) and (may_load or not lacking):
            if lacking:
                plan.lacking.append(lacking)
            plan.recent.append(recent)
            return
    plan.asks.append(_delta(nid, stay, position, plan.now))


def _typing_changed(typing: Typing, position: int, session: Session) -> bool:
    return typing.changed > position or typing.expired_at > session.answered_at


def _take_members(
    recent: Recent, lacking: Lacking, user_id: str, position: int, session: Session, shape: Shape
) -> bool:
    """What is told beside the timeline: counts, heroes, members lazily. False if the caches cannot know it."""
    members, timeline = recent.room.members, recent.timeline
    changed = False
    for output in timeline:
        if output.line or output.unchecked:
            return False
        if output.annotation is not None:
            if "state" in output.notes:
                return False
            recent.joined = output.notes.get("joined", recent.joined)
            recent.invited = output.notes.get("invited", recent.invited)
            changed = changed or "members" in output.notes
    if changed:
        if members.heroes is None:
            lacking.heroes = True
        elif members.heroes_moved > position:
            recent.heroes = heroes_of(members.heroes, user_id)
    chosen = shape.filter.room.state
    if not chosen.lazy_load_members or not timeline:
        return True
    wanted = _speakers(timeline)
    if not chosen.include_redundant_members:
        wanted = session.unknown(recent.nid, wanted)
    recent.told = wanted | session.unknown(recent.nid, recent.heroes or ())
    for wanted_id in recent.told:
        if wanted_id not in members.known:
            lacking.users.add(wanted_id)
        elif (standing := members.known[wanted_id]) is not None:
            if standing[0] >= timeline[0].position and not shape.state_after:
                # It changed within the timeline; what stood before has to be told.
                return False
            recent.members.append(standing[1])
    return True


def _speakers(timeline: list[Output]) -> set[str]:
    """Who sent what is in a timeline, but for those whose own member event comes first in it."""
    speakers: set[str] = set()
    introduced: set[str] = set()
    for output in timeline:
        if output.type == "m.room.member" and output.state_key == output.sender:
            introduced.add(output.sender)
        elif output.sender not in introduced:
            speakers.add(output.sender)
    return speakers
