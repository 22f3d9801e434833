"""Judging an event on its room's main line.

Invariant: pure of I/O: everything asked is in the `Item`'s room, and everything decided goes into `Effects`. An event whose state
before is not the current state, or whose acceptance needs a resolution, is not decided here: `OffMainLine` is raised before
anything changed, and `roomserver.forks` decides it from the tables.
"""

from __future__ import annotations

from typing import Any

from eventlog.safe_text import safe
from matrix.auth_rules import AuthError, UnknownAuthEvent, check_against_state, check_event_alone
from matrix.events import Event
from roomserver.effects import Effects, letter
from roomserver.redactions import is_withheld, power_state, redact, redacted_early
from roomserver.rooms import Known, Room, StateEvent, StateKey
from roomserver.store import CREATE, Item, Store

# More than this of a replaced state event's content is not repeated in the annotation.
MOST_PREV_CONTENT = 16_384

# What an event of a room waits for that is not known, with the room's id.
NO_ROOM = "the create event of "
BROKEN = ("r", "s", "t", "q")


class OffMainLine(Exception):
    """The event needs states other than the current one."""


class MissingEvents(Exception):
    """Events that this one rests on are not known yet."""

    def __init__(self, event_ids: list[str]) -> None:
        super().__init__(f"waits for {', '.join(event_ids)}")
        self.event_ids = event_ids


def judge_event(item: Item, store: Store, effects: Effects) -> str:
    """Decides on an event and adds what follows; returns the verdict. Raises OffMainLine or MissingEvents."""
    entry, event = item.entry, item.event
    assert entry.event_id is not None and entry.room_id is not None
    room = store.rooms.get(entry.room_id)
    if event is None or room is None:
        if event is not None and event.type == CREATE[0]:
            return _begin_room(item, event, store, effects)
        if entry.type == CREATE[0]:
            return _refuse(effects, item, None, "r", "The room version is not a recognised one.")
        if entry.local:
            return _refuse(effects, item, None, "t", "The room's create event was not accepted.")
        raise MissingEvents([NO_ROOM + entry.room_id])
    known = room.known
    missing = [event_id for event_id in event.prev_events if event_id not in known]
    if any((entry.room_id, event_id) in store.elsewhere for event_id in missing):
        return _refuse(effects, item, room, "r", "A previous event is of another room.")
    if missing:
        raise MissingEvents(missing)
    if event.type == CREATE[0]:
        return _refuse(effects, item, room, "r", "The room has a create event.")
    previous = [known[event_id] for event_id in event.prev_events]
    if entry.local and any(p.verdict in BROKEN for p in previous):
        return _refuse(effects, item, room, "t", "A previous event of this server was not accepted.")
    if not previous:
        return _refuse(effects, item, room, "r", "The event has no previous events.")
    if not all(room.is_current(p) and p.verdict == "a" for p in previous):
        raise OffMainLine
    alone = room.extremities.issubset(event.prev_events)
    if event.is_state and not alone:
        raise OffMainLine
    try:
        _authorise(item, event, room)
    except UnknownAuthEvent as error:
        if (entry.room_id, error.event_id) in store.elsewhere:
            return _refuse(effects, item, room, "r", "An auth event is of another room.")
        raise MissingEvents([error.event_id]) from None
    except AuthError as error:
        return _refuse(effects, item, room, "r", error.reason)
    _accept(item, event, room, store, effects)
    return "a"


def _begin_room(item: Item, event: Event, store: Store, effects: Effects) -> str:
    entry = item.entry
    try:
        check_event_alone(event, {})
    except AuthError as error:
        return _refuse(effects, item, None, "r", error.reason)
    room = Room(
        nid=store.number(),
        room_id=event.room_id,
        version=event.room_version,
        extremities=set(),
        depth=0,
        position=0,
        state_position=0,
        judged_seq=0,
        generation=0,
        joined=0,
        invited=0,
        is_new=True,
    )
    effects.add("rooms", nid=room.nid, room_id=room.room_id, room_version=room.version.identifier)
    store.rooms.put(room)
    item.room = room
    _accept(item, event, room, store, effects)
    assert entry.event_id is not None
    return "a"


def _authorise(item: Item, event: Event, room: Room) -> None:
    """All checks at once where they coincide: the auth events are those of the current state, which is the state before."""
    plain = not event.is_state and event.type != "m.room.redaction"
    if plain:
        memo = room.senders.get((event.sender, event.type))
        if memo is not None and _names(event, memo):
            return
    state: dict[StateKey, Event] = {}
    selected = set()
    for key in item.keys:
        found = _state(room, key)
        if found is not None:
            state[key] = found.event
            if key != CREATE or room.version.create_event_in_auth_events:
                selected.add(found.event.event_id)
    if not _names(event, selected):
        by_id = {e.event_id: e for e in state.values()}
        for event_id in event.auth_events:
            if event_id not in by_id:
                known = room.known.get(event_id)
                if known is None or known.event is None:
                    raise UnknownAuthEvent(event_id)
                known.event.rejected = known.verdict in ("r", "t", "q")
                by_id[event_id] = known.event
        check_event_alone(event, by_id)
        named: dict[StateKey, Event] = {}
        for event_id in event.auth_events:
            auth_event = by_id[event_id]
            named[auth_event.type, auth_event.state_key or ""] = auth_event
        if CREATE in state:
            named.setdefault(CREATE, state[CREATE])
        check_against_state(event, named)
    elif event.type == "m.room.member":
        check_event_alone(event, {e.event_id: e for e in state.values()})
    check_against_state(event, state)
    if plain:
        room.senders[event.sender, event.type] = frozenset(selected)


def _names(event: Event, selected: set[str] | frozenset[str]) -> bool:
    """Whether the auth events are these, each named once: twice is one too many (rule 3.1)."""
    return len(event.auth_events) == len(selected) and selected.issubset(event.auth_events)


def _state(room: Room, key: StateKey) -> StateEvent | None:
    """Current state of a key. A room begun in this batch has no more than what is here; any other was asked before."""
    if room.is_new:
        return room.state.get(key)
    return room.state[key]


def _accept(item: Item, event: Event, room: Room, store: Store, effects: Effects) -> None:
    entry = item.entry
    position = effects.next_position()
    event_id = event.event_id
    annotation: dict[str, Any] | None = None
    withheld = False
    if event.state_key is not None:
        annotation = _change_state(room, event, entry.id, position, effects)
    elif event.redacts is not None:
        target = room.known.get(event.redacts)
        annotation = redact(room, event, entry.id, target, power_state(room), position, store, effects)
        withheld = is_withheld(event, annotation)
    if not entry.local and event_id in store.early:
        annotation = {**(annotation or {}), **redacted_early(room, event, power_state(room), position, store, effects)}
    if not withheld:
        relate(room, event, entry.id, position, effects)
    timeline = None if withheld else position
    effects.output(position, entry.kind, entry.id, "a", room=room.nid, timeline=timeline, annotation=annotation)
    room.extremities.difference_update(event.prev_events)
    room.extremities.add(event_id)
    room.depth = max(room.depth, event.depth)
    room.position = position
    if entry.seq is not None:
        room.judged_seq = max(room.judged_seq, entry.seq)
    room.remember(event_id, Known(entry.id, "a", 0, position, event))
    effects.touched[room.nid] = room


def replaced(old: StateEvent | None) -> dict[str, Any]:
    """The annotation's words on what a state event replaced."""
    if old is None:
        return {}
    words: dict[str, Any] = {"replaces": old.event.event_id, "prev_sender": old.event.sender}
    if len(str(old.event.content)) <= MOST_PREV_CONTENT:
        words["prev_content"] = old.event.content
    return words


def _change_state(room: Room, event: Event, entry: int, position: int, effects: Effects) -> dict[str, Any]:
    key = (event.type, event.state_key or "")
    old = _state(room, key)
    annotation: dict[str, Any] = {"current": True, **replaced(old)}
    effects.set_state(room, 0, key, position, (entry, event), existed=old is not None)
    if event.type == "m.room.member":
        annotation |= change_member(room, event, None if old is None else old.event, entry, position, effects)
    room.state[key] = StateEvent(entry, event)
    room.state_position = position
    room.senders.clear()
    return annotation


def change_member(
    room: Room, event: Event | None, old: Event | None, entry: int, position: int, effects: Effects
) -> dict[str, Any]:
    """A membership of the current state changes: the table of record, the counts, and the words for the annotation."""
    standing = event if event is not None else old
    assert standing is not None and standing.state_key is not None
    user_id = standing.state_key
    new, before = (letter(event) or "l") if event is not None else "l", letter(old)
    begun: dict[str, int | None] = {"joined_at": position} if new == "j" and before != "j" else {}
    effects.put(
        "memberships",
        ("user_id", "room"),
        user_id=user_id,
        room=room.nid,
        membership=new,
        position=position,
        entry=entry,
        sender=standing.sender,
        **begun,
    )
    # A commit writes memberships before it marks what is forgotten.
    effects.withdraw("forgotten", user_id, room.nid)
    room.joined += (new == "j") - (before == "j")
    room.invited += (new == "i") - (before == "i")
    words: dict[str, Any] = {"members": [[user_id, new, before]]}
    if (new == "j") != (before == "j") or (new == "i") != (before == "i"):
        words |= {"joined": room.joined, "invited": room.invited}
    return words


def relate(room: Room, event: Event, entry: int, position: int, effects: Effects) -> None:
    """Notes what the event relates to (specification, "Forming relationships between events")."""
    relation = event.content.get("m.relates_to")
    if not isinstance(relation, dict):
        return
    target, kind = relation.get("event_id"), relation.get("rel_type")
    if isinstance(target, str) and isinstance(kind, str) and len(target) <= 255 and len(kind) <= 255 and kind:
        effects.add(
            "relations",
            target=safe(target),
            rel_type=safe(kind),
            timeline=position,
            entry=entry,
            room=room.nid,
            event_id=event.event_id,
            sender=event.sender,
        )


def _refuse(effects: Effects, item: Item, room: Room | None, verdict: str, reason: str) -> str:
    entry = item.entry
    position = effects.next_position()
    effects.output(position, entry.kind, entry.id, verdict, room=None if room is None else room.nid, reason=reason)
    if room is None:
        return verdict
    assert entry.event_id is not None
    room.remember(entry.event_id, Known(entry.id, verdict, 0, position, item.event))
    room.position = position
    if entry.seq is not None:
        room.judged_seq = max(room.judged_seq, entry.seq)
        if verdict != "t":
            # The chain is broken here: what follows is built on the extremities again.
            room.generation += 1
    effects.touched[room.nid] = room
    return verdict
