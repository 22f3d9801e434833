"""Redactions taking effect: at once, or when the event that they name arrives.

Invariant: an event is redacted by the first redaction that applies to it, whichever of the two comes first. Pure of I/O: what came
early is read into the store before a batch is judged, and kept up to date by the batch itself.
Source: "Handling redactions" of room versions 3 and newer.
"""

from __future__ import annotations

from typing import Any

from eventlog.safe_text import safe
from matrix.auth_selection import StateMap
from matrix.events import Event
from matrix.redaction_rights import redaction_applies
from roomserver.effects import Effects
from roomserver.rooms import Known, Room, StateKey
from roomserver.store import CREATE, Early, Store

LEVELS: StateKey = ("m.room.power_levels", "")


def power_state(room: Room) -> dict[StateKey, Event]:
    """What of the current state says how powerful somebody is."""
    return {key: found.event for key in (CREATE, LEVELS) if (found := room.state.get(key)) is not None}


def is_withheld(redaction: Event, words: dict[str, Any]) -> bool:
    """Whether clients are not sent a redaction that was accepted: it does not apply, or nobody knows yet.

    `words` are those of its output. What also changes the room's state is sent: the change is told with it.
    """
    # "they should not be sent to clients until both the redaction event and the event the redaction affects have been
    # received, and can be validated." The auth rules of versions 1 and 2 have validated theirs.
    return not redaction.room_version.redactions_need_power and words.keys() <= {"awaits"}


def redact(
    room: Room,
    redaction: Event,
    entry: int,
    target: Known | None,
    state: StateMap,
    position: int,
    store: Store,
    effects: Effects,
) -> dict[str, Any]:
    """A redaction was accepted; `target` is what is known of the event that it names. Returns the words for the annotation."""
    named = redaction.redacts
    assert named is not None
    row = {"redaction": redaction.event_id, "entry": entry, "room": room.nid, "position": position}
    if target is None:
        if len(named) > 255:
            return {}
        effects.add("early_redactions", target=safe(named), **row)
        store.early.setdefault(named, []).append(Early(entry, redaction))
        return {"awaits": named}
    if target.event is None or target.verdict != "a" or not redaction_applies(redaction, target.event, state):
        return {}
    effects.add("redactions", target=named, **row)
    return {"redacts": named}


def redacted_early(
    room: Room, event: Event, state: StateMap, position: int, store: Store, effects: Effects
) -> dict[str, Any]:
    """An event was accepted that redactions may have come for before. Returns the words for the annotation."""
    for early in store.early.get(event.event_id, ()):
        if redaction_applies(early.redaction, event, state):
            effects.add(
                "redactions",
                target=event.event_id,
                redaction=early.redaction.event_id,
                entry=early.entry,
                room=room.nid,
                position=position,
            )
            return {"redacts": event.event_id, "redaction": [early.redaction.event_id, early.entry]}
    return {}
