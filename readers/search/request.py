"""What a search asks for, and the tokens by which it is carried on.

Invariant: what parses is in its bounds; a token is one that this server could have given out. Source: client-server API, "POST
/_matrix/client/v3/search".
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

import orjson

from eventlog.safe_text import safe
from matrix.errors import bad_json, invalid_param, missing_param
from matrix.filters import RoomEventFilter, parse_room_event_filter
from readers.search.projection import plain

KEYS: Final = ("content.body", "content.name", "content.topic")
ORDERS: Final = ("rank", "recent")
GROUPS: Final = ("room_id", "sender")
LIMIT: Final = 10
MOST_RESULTS: Final = 100
CONTEXT: Final = 5
MOST_CONTEXT: Final = 100
MOST_TERM: Final = 1_000
"""Characters of a search term."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the results to go on: after a value of the order and an entry, within a group or in all.

    `count` is how many results there are, as the first page said.
    """

    by_rank: bool
    value: float
    entry: int
    count: int
    group: str = ""
    of: str = ""

    def __str__(self) -> str:
        words = [self.by_rank, self.value, self.entry, self.count, self.group, self.of]
        return base64.urlsafe_b64encode(orjson.dumps(words)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Place:
        """Reads a token; M_INVALID_PARAM for what is none."""
        try:
            padded = text.encode() + b"=" * (-len(text) % 4)
            words = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            by_rank, value, entry, count, group, of = words
        except (ValueError, binascii.Error, TypeError):
            raise invalid_param("next_batch is not a token of this server.") from None
        fits = isinstance(by_rank, bool) and all(type(one) is int and 0 <= one < 1 << 63 for one in (entry, count))
        fits = fits and isinstance(of, str) and group in ("", *GROUPS)
        fits = fits and type(value) in ((float, int) if by_rank else (int,)) and abs(value) < 1 << 62
        if not fits:
            raise invalid_param("next_batch is not a token of this server.")
        return cls(by_rank, value, entry, count, group, of)


@dataclass(frozen=True, slots=True)
class Context:
    """How much to show around each result."""

    before: int
    after: int
    include_profile: bool


@dataclass(frozen=True, slots=True)
class Criteria:
    """A search in the events of rooms."""

    term: str
    keys: tuple[str, ...]
    wanted: RoomEventFilter
    by_rank: bool
    limit: int
    context: Context | None
    include_state: bool
    groups: tuple[str, ...]
    place: Place | None

    @property
    def rooms(self) -> list[str] | None:
        """Ids of the rooms to search in, None for all."""
        return None if self.wanted.rooms is None else [safe(room_id) for room_id in self.wanted.rooms]


def parse_criteria(body: Any, next_batch: str | None) -> Criteria | None:
    """The criteria of a request's body; None when it asks for no category that there is.

    Raises M_BAD_JSON, M_MISSING_PARAM, M_INVALID_PARAM.
    """
    if not isinstance(body, dict):
        raise bad_json("The body must be an object.")
    if "search_categories" not in body:
        raise missing_param("search_categories is missing.")
    asked = _object(_object(body, "search_categories"), "room_events", optional=True)
    if asked is None:
        return None
    term = asked.get("search_term")
    if term is None:
        raise missing_param("search_term is missing.")
    if not isinstance(term, str):
        raise bad_json("search_term must be a string.")
    if len(term) > MOST_TERM:
        raise invalid_param(f"search_term may have {MOST_TERM} characters.")
    wanted = parse_room_event_filter(asked.get("filter") or {})
    order = asked.get("order_by", "rank")
    if order not in ORDERS:
        raise invalid_param(f"order_by is one of: {', '.join(ORDERS)}.")
    place = Place.parse(next_batch) if next_batch else None
    if place is not None and place.by_rank is not (order == "rank"):
        raise invalid_param("next_batch was given out for another order.")
    return Criteria(
        term=plain(term),
        keys=_chosen(asked, "keys", KEYS) or KEYS,
        wanted=wanted,
        by_rank=order == "rank",
        limit=min(wanted.limit or LIMIT, MOST_RESULTS),
        context=_context(asked),
        include_state=_flag(asked, "include_state"),
        groups=_groups(asked),
        place=place,
    )


def _context(asked: Json) -> Context | None:
    around = _object(asked, "event_context", optional=True)
    if around is None:
        return None
    return Context(_count(around, "before_limit"), _count(around, "after_limit"), _flag(around, "include_profile"))


def _groups(asked: Json) -> tuple[str, ...]:
    groupings = _object(asked, "groupings", optional=True) or {}
    groups = groupings.get("group_by", [])
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise bad_json("group_by must be a list of objects.")
    keys = [group.get("key") for group in groups[: len(GROUPS) + 1]]
    if any(key not in GROUPS for key in keys):
        raise invalid_param(f"A group's key is one of: {', '.join(GROUPS)}.")
    return tuple(dict.fromkeys(keys))


def _object(body: Json, name: str, *, optional: bool = False) -> Any:
    value = body.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, dict):
        raise bad_json(f"{name} must be an object.")
    return value


def _chosen(body: Json, name: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    values = body.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise bad_json(f"{name} must be a list of strings.")
    if any(value not in choices for value in values):
        raise invalid_param(f"{name} holds of: {', '.join(choices)}.")
    return tuple(dict.fromkeys(values))


def _flag(body: Json, name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise bad_json(f"{name} must be a boolean.")
    return value


def _count(body: Json, name: str) -> int:
    value = body.get(name, CONTEXT)
    if type(value) is not int:
        raise bad_json(f"{name} must be an integer.")
    if value < 0:
        raise invalid_param(f"{name} is at least 0.")
    return min(value, MOST_CONTEXT)
