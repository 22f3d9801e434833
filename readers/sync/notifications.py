"""What events do to members by their push rules, as the unread counts need it.

Invariant: an event is read once per process, whoever it is evaluated for, and what it does to all who have changed no rule and are
not mentioned is found once. Source: client-server API, "Receiving notifications", "Threaded read receipts".
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import orjson

from matrix.events import Event
from matrix.power_levels import PowerLevels
from matrix.push_evaluation import DEFAULT_EVALUATOR, SILENT, EventFacts, Notification, event_facts
from matrix.room_versions import RoomVersion
from readers.sync.outputs import Output
from readers.sync.users import User

MOST_FACTS: Final = 500
"""Events kept parsed: a message is evaluated for everybody who waits within the same moment."""
TYPES: Final = ("m.room.message", "m.room.encrypted", "m.room.tombstone", "m.call.invite")
"""Types of events that the default rules can notify a member of, mentions aside."""


_TYPES: Final = frozenset(TYPES)


def may_notify(output: Output) -> bool:
    """Whether the default rules may notify a member of an event, going by its type alone."""
    return output.type in _TYPES or b"m.mentions" in output.json


@dataclass(frozen=True, slots=True)
class RoomBasis:
    """What rules ask of a room beside the event."""

    version: RoomVersion
    joined: int
    levels: PowerLevels


@dataclass(slots=True)
class Facts:
    """An event as rules see it. `common` is what it does by the default rules to all whom it does not mention."""

    of_event: EventFacts
    content: dict[str, Any]
    common: Notification | None


class Notifications:
    """Evaluates events for members; keeps the latest events parsed."""

    def __init__(self) -> None:
        self._facts: OrderedDict[int, Facts] = OrderedDict()

    def evaluate(self, output: Output, basis: RoomBasis, user: User, display_name: str | None) -> Notification:
        """What the event does to a member; what those they ignore send is not told to them, and does nothing."""
        if output.sender == user.user_id or output.redaction is not None:
            return SILENT
        if output.sender in user.ignored and output.state_key is None:
            return SILENT
        facts = self.facts(output, basis)
        if user.evaluator is DEFAULT_EVALUATOR and facts.common is not None:
            return facts.common
        return user.evaluator.evaluate(facts.of_event, user.user_id, display_name)

    def facts(self, output: Output, basis: RoomBasis) -> Facts:
        """The event, parsed."""
        facts = self._facts.get(output.entry)
        if facts is None:
            pdu = orjson.loads(output.json)
            event = Event.from_pdu(pdu, basis.version, output.event_id)
            of_event = event_facts(event, basis.joined, basis.levels)
            left = of_event.left_of(DEFAULT_EVALUATOR)
            common = SILENT if not left else None if left[0][0] else left[0][1]
            facts = self._facts[output.entry] = Facts(of_event, event.content, common)
            if len(self._facts) > MOST_FACTS:
                self._facts.popitem(last=False)
        return facts
