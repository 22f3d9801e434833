"""Query parameters read one by one: each accessor gives the type it promises or the specification's error.

Where a parameter is given twice, the last one counts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from falcon.asgi import Request

from matrix.errors import invalid_param, missing_param
from matrix.filters import RoomEventFilter, parse_room_event_filter
from matrix.json_input import parse_json

NO_FILTER: Final = RoomEventFilter()

_INTEGER = re.compile(r"-?[0-9]{1,18}")


class Parameters:
    """The query parameters of a request."""

    __slots__ = ("_values",)

    def __init__(self, request: Request) -> None:
        self._values = request.params

    def text(self, name: str) -> str | None:
        """A string, or None when absent."""
        value = self._values.get(name)
        if isinstance(value, list):
            value = value[-1]
        return value

    def chosen(self, name: str, choices: tuple[str, ...], default: str | None = None) -> str:
        """One of some words; M_MISSING_PARAM when absent without a default, M_INVALID_PARAM for another word."""
        value = self.text(name)
        if value is None:
            if default is None:
                raise missing_param(f"{name} is missing.")
            return default
        if value not in choices:
            raise invalid_param(f"{name} is one of: {', '.join(choices)}.")
        return value

    def backwards(self, default: str | None = None) -> bool:
        """The parameter `dir`."""
        return self.chosen("dir", ("b", "f"), default) == "b"

    def integer(self, name: str) -> int | None:
        """A whole number, or None when absent."""
        value = self.text(name)
        if value is None:
            return None
        if not _INTEGER.fullmatch(value):
            raise invalid_param(f"{name} is a whole number.")
        return int(value)

    def limit(self, default: int, most: int, least: int = 1) -> int:
        """The parameter `limit`, lowered to `most`; M_INVALID_PARAM below `least`."""
        value = self.integer("limit")
        if value is None:
            return default
        if value < least:
            raise invalid_param(f"limit is at least {least}.")
        return min(value, most)

    def flag(self, name: str) -> bool | None:
        """true or false, or None when absent."""
        value = self.text(name)
        if value is None:
            return None
        if value not in ("true", "false"):
            raise invalid_param(f"{name} is true or false.")
        return value == "true"

    def room_event_filter(self) -> RoomEventFilter:
        """The parameter `filter`, a RoomEventFilter as JSON; the one that takes everything when absent."""
        value = self.text("filter")
        return _filter_of(value) if value else NO_FILTER


@lru_cache(maxsize=512)
def _filter_of(definition: str) -> RoomEventFilter:
    return parse_room_event_filter(parse_json(definition.encode()))
