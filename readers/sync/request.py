"""What a client asks of /sync, parsed once.

Invariant: equal filter definitions are one `Shape` in this process, so that responses can be shared among those who asked alike.
Source: client-server API, "GET /_matrix/client/v3/sync".
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from matrix.filters import Filter, parse_filter
from matrix.json_input import parse_json

DEFAULT_LIMIT: Final = 10
"""Timeline events per room when the filter does not say."""
MOST_LIMIT: Final = 1_000
"""The most timeline events per room, whatever the filter says."""
MOST_TIMEOUT: Final = 300.0
"""Longest long poll in seconds."""
MOST_SHAPES: Final = 5_000

_numbers = itertools.count(1)


class Shape:
    """How a client wants its answer: its filter, and whether state is told as of the timeline's end. Equal if identical."""

    __slots__ = ("filter", "key", "limit", "plain", "state_after")

    def __init__(self, chosen: Filter, state_after: bool) -> None:
        self.filter = chosen
        self.state_after = state_after
        self.key = next(_numbers)
        timeline = chosen.room.timeline
        self.limit = min(DEFAULT_LIMIT if timeline.limit is None else timeline.limit, MOST_LIMIT)
        self.plain = (
            timeline.takes_all
            and chosen.room.state.takes_all
            and chosen.event_fields is None
            and chosen.event_format == "client"
        )
        """Whether every event of a room passes as it is."""


class Shapes:
    """The shapes in use, by definition; bounded."""

    def __init__(self) -> None:
        self._shapes: OrderedDict[tuple[str, bool], Shape] = OrderedDict()

    def of(self, definition: str, state_after: bool) -> Shape:
        """The shape of a filter definition ('' for none). Raises MatrixError for one that is not a filter."""
        key = (definition, state_after)
        shape = self._shapes.get(key)
        if shape is None:
            chosen = parse_filter(parse_json(definition.encode())) if definition else Filter()
            shape = self._shapes[key] = Shape(chosen, state_after)
            if len(self._shapes) > MOST_SHAPES:
                self._shapes.popitem(last=False)
        return shape


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """One request. `timeout` in seconds, `since` as the client sent it ('' for an initial sync)."""

    user_id: str
    device_id: str
    shape: Shape
    since: str = ""
    timeout: float = 0.0
    full_state: bool = False
