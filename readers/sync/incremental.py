"""What changed for a user since a token: which rooms the caches can tell, which the tables must.

Invariant: a plan is made in one go, without waiting, so that everything in it is as of the same positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from readers.sync.current import Current
from readers.sync.outputs import Output
from readers.sync.request import Shape
from readers.sync.rooms import Receipt, Room
from readers.sync.sessions import Session
from readers.sync.tables import RoomAsk
from readers.sync.users import Change, Stay, User

Positions = tuple[int, ...]


@dataclass(slots=True)
class Recent:
    """A room whose news the caches hold."""

    nid: int
    room: Room
    timeline: list[Output]
    receipts: list[Receipt]


@dataclass(slots=True)
class Plan:
    """What an answer consists of. `asks` are for the tables; `invites` holds invites and knocks."""

    now: Positions
    recent: list[Recent] = field(default_factory=list)
    asks: list[RoomAsk] = field(default_factory=list)
    invites: dict[int, Stay] = field(default_factory=dict)
    typing: dict[int, list[str]] = field(default_factory=dict)
    """Who types, by room in which that is news."""


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
    token, those left since. With `since` (full_state) timelines begin there, unless they are to be told anew too."""
    plan = Plan(now)
    changed = {change.nid for change in changes}
    for nid, stay in user.rooms.items():
        if not shape.filter.room.takes_room(stay.room_id):
            continue
        upto = now[stay.shard]
        if stay.membership == "j":
            after = 0 if since is None or nid in changed or timelines_anew else since[stay.shard]
            plan.asks.append(RoomAsk(nid, stay.room_id, stay.shard, after, upto, None, stay.joined_at))
            if (
                (room := current.rooms.get(nid)) is not None
                and room.typing is not None
                and (users := room.typing.users())
            ):
                plan.typing[nid] = users
        elif stay.membership in "ik":
            plan.invites[nid] = stay
        elif stay.joined_at is not None and (
            (shape.filter.room.include_leave and not stay.forgotten) or nid in changed
        ):
            plan.asks.append(
                RoomAsk(
                    nid,
                    stay.room_id,
                    stay.shard,
                    0,
                    stay.position,
                    None,
                    stay.joined_at,
                    left=True,
                    receipts_after=None,
                )
            )
    return plan


def plan_incremental(
    current: Current,
    user: User,
    session: Session,
    shape: Shape,
    now: Positions,
    since: Positions,
    changes: list[Change],
) -> Plan:
    """What happened after `since`. `changes` are the user's membership changes after it, in order per room."""
    plan = Plan(now)
    by_room: dict[int, list[Change]] = {}
    for change in changes:
        by_room.setdefault(change.nid, []).append(change)
    takes_room, rooms, floors = shape.filter.room.takes_room, current.rooms, current.rooms.floors
    for nid, stay in user.rooms.items():
        moves = by_room.get(nid)
        if moves is not None and (len(moves) > 1 or moves[0].old != "j" or stay.membership != "j"):
            if takes_room(stay.room_id):
                _plan_move(plan, nid, stay, moves, now, since)
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
            _plan_recent(plan, nid, stay, room, position, session, shape)
    return plan


def _plan_move(plan: Plan, nid: int, stay: Stay, moves: list[Change], now: Positions, since: Positions) -> None:
    """A room in which the user's membership changed, beyond a new profile."""
    shard = stay.shard
    first, position = moves[0].old, since[shard]
    stayed = first == "j" and all(move.new == "j" for move in moves)
    if stay.membership == "j":
        if stayed:
            plan.asks.append(_delta(nid, stay, position, now))
        else:
            plan.asks.append(RoomAsk(nid, stay.room_id, shard, 0, now[shard], None, stay.joined_at, fresh=True))
    elif stay.membership in "ik":
        plan.invites[nid] = stay
    elif first == "j" and all(move.new == "j" for move in moves[:-1]):
        plan.asks.append(
            RoomAsk(
                nid,
                stay.room_id,
                shard,
                position,
                stay.position,
                position,
                stay.joined_at,
                left=True,
                receipts_after=None,
            )
        )
    elif any(move.new == "j" for move in moves):
        # Joined and left in between: the room as it was until then, which the client has never seen.
        leave = next(m for i, m in enumerate(moves) if m.new in "lb" and (moves[i - 1].new if i else first) == "j")
        for i, move in enumerate(moves):
            if move.new in "lb" and (moves[i - 1].new if i else first) == "j":
                leave = move
        plan.asks.append(
            RoomAsk(
                nid,
                stay.room_id,
                shard,
                0,
                leave.position,
                None,
                stay.joined_at,
                fresh=True,
                left=True,
                receipts_after=None,
            )
        )
    else:
        # Never in it: a rejected or withdrawn invite, a ban. Its own event is all there is to see.
        plan.asks.append(
            RoomAsk(
                nid,
                stay.room_id,
                shard,
                stay.position - 1,
                stay.position,
                stay.position,
                stay.position,
                left=True,
                receipts_after=None,
            )
        )


def _delta(nid: int, stay: Stay, position: int, now: Positions) -> RoomAsk:
    return RoomAsk(
        nid, stay.room_id, stay.shard, position, now[stay.shard], position, stay.joined_at, receipts_after=position
    )


def _plan_recent(plan: Plan, nid: int, stay: Stay, room: Room, position: int, session: Session, shape: Shape) -> None:
    timeline, receipts = room.after(position), room.receipts_after(position)
    if room.typing is not None and (room.typing.changed > position or room.typing.expired_at > session.answered_at):
        plan.typing[nid] = room.typing.users()
    if timeline is None or receipts is None or not _is_simple(nid, timeline, session, shape):
        plan.asks.append(_delta(nid, stay, position, plan.now))
    else:
        plan.recent.append(Recent(nid, room, timeline, receipts))


def _is_simple(nid: int, timeline: list[Output], session: Session, shape: Shape) -> bool:
    """Whether the timeline can be told from the cache: it fits, and no state beside it is needed."""
    if len(timeline) > shape.limit:
        return False
    for output in timeline:
        if output.annotation is not None and (
            "state" in output.notes or "joined" in output.notes or "invited" in output.notes
        ):
            return False
    state = shape.filter.room.state
    if state.lazy_load_members and timeline:
        if state.include_redundant_members:
            return False
        return not session.unknown(nid, {output.sender for output in timeline})
    return True
