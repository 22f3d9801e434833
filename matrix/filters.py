"""Filters: what a client wants to see of its events.

A filter is parsed once and is then immutable; it says of an event whether it passes, and exposes its lists so that a query can
select by them. Unknown members are ignored. Source: client-server API, "Filtering"; the schemas Filter, EventFilter and
RoomEventFilter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

from matrix.errors import MatrixError, bad_json, invalid_param
from matrix.globs import Wildcard
from matrix.property_paths import parse_path

__all__ = [
    "MAX_ENTRIES",
    "EventFilter",
    "Filter",
    "RoomEventFilter",
    "RoomFilter",
    "parse_filter",
    "parse_room_event_filter",
]

MAX_ENTRIES = 10_000
"""Longest list in a filter."""


class _Types:
    """Event types and patterns of them, matched together."""

    __slots__ = ("exact", "patterns")

    def __init__(self, types: tuple[str, ...]) -> None:
        self.exact = frozenset(type for type in types if "*" not in type)
        self.patterns = tuple(Wildcard(type) for type in types if "*" in type)

    def match(self, event_type: str) -> bool:
        return event_type in self.exact or any(pattern.matches(event_type) for pattern in self.patterns)


@dataclass(frozen=True)
class EventFilter:
    """Which events pass by their type and sender; None for a list that was not given (nothing is excluded by it)."""

    limit: int | None = None
    """The most events to return, at least 1."""
    types: tuple[str, ...] | None = None
    """Event types to include; `*` stands for any sequence of characters."""
    not_types: tuple[str, ...] | None = None
    """Event types to exclude, even if included above; likewise with `*`."""
    senders: tuple[str, ...] | None = None
    not_senders: tuple[str, ...] | None = None

    @cached_property
    def takes_all_events(self) -> bool:
        """Whether no event is excluded for its type or sender."""
        return self.types is None and self.senders is None and not self.not_types and not self.not_senders

    @cached_property
    def takes_nothing(self) -> bool:
        """Whether every event is excluded: `types` or `senders` is there and empty, or every type is excluded."""
        return self.types == () or self.senders == () or "*" in (self.not_types or ())

    @cached_property
    def _types(self) -> _Types | None:
        return None if self.types is None else _Types(self.types)

    @cached_property
    def _not_types(self) -> _Types | None:
        return _Types(self.not_types) if self.not_types else None

    @cached_property
    def _senders(self) -> frozenset[str] | None:
        return None if self.senders is None else frozenset(self.senders)

    @cached_property
    def _not_senders(self) -> frozenset[str]:
        return frozenset(self.not_senders or ())

    def takes_type(self, event_type: str) -> bool:
        """Whether an event may pass, going by its type alone."""
        if self._not_types is not None and self._not_types.match(event_type):
            return False
        return self._types is None or self._types.match(event_type)

    def takes_sender(self, sender: str | None) -> bool:
        """Whether an event may pass, going by its sender alone. Account data, typing and receipts have none."""
        if sender in self._not_senders:
            return False
        return self._senders is None or sender in self._senders

    def matches(self, event_type: str, sender: str | None = None) -> bool:
        """Whether an event passes."""
        return self.takes_all_events or (self.takes_type(event_type) and self.takes_sender(sender))


@dataclass(frozen=True)
class RoomEventFilter(EventFilter):
    """Which events of rooms pass, and how memberships come with them."""

    rooms: tuple[str, ...] | None = None
    not_rooms: tuple[str, ...] | None = None
    contains_url: bool | None = None
    """True for only events with a `url` in their content, False for only events without."""
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    """Without effect unless `lazy_load_members` is set."""
    unread_thread_notifications: bool = False

    @cached_property
    def takes_all(self) -> bool:
        """Whether nothing is excluded."""
        return self.takes_all_events and self.rooms is None and not self.not_rooms and self.contains_url is None

    @cached_property
    def _rooms(self) -> _Rooms:
        return _Rooms(self.rooms, self.not_rooms)

    def takes_room(self, room_id: str) -> bool:
        """Whether anything of a room may pass."""
        return self._rooms.take(room_id)

    def matches_in_room(self, room_id: str, event_type: str, sender: str | None, has_url: Callable[[], bool]) -> bool:
        """Whether an event of a room passes; whether its content has a `url` is asked where that matters."""
        if self.takes_all:
            return True
        if not self.takes_room(room_id) or not self.matches(event_type, sender):
            return False
        return self.takes_url(has_url)

    def takes_url(self, has_url: Callable[[], bool]) -> bool:
        """Whether an event may pass, going by the `url` in its content alone."""
        return self.contains_url is None or has_url() is self.contains_url


class _Rooms:
    """Rooms to include and to exclude."""

    __slots__ = ("excluded", "included")

    def __init__(self, included: tuple[str, ...] | None, excluded: tuple[str, ...] | None) -> None:
        self.included = None if included is None else frozenset(included)
        self.excluded = frozenset(excluded or ())

    def take(self, room_id: str) -> bool:
        return room_id not in self.excluded and (self.included is None or room_id in self.included)


@dataclass(frozen=True)
class RoomFilter:
    """Which rooms pass, and what of each kind of event in them."""

    rooms: tuple[str, ...] | None = None
    not_rooms: tuple[str, ...] | None = None
    include_leave: bool = False
    """Whether rooms that the user has left are included."""
    state: RoomEventFilter = field(default_factory=RoomEventFilter)
    timeline: RoomEventFilter = field(default_factory=RoomEventFilter)
    ephemeral: RoomEventFilter = field(default_factory=RoomEventFilter)
    account_data: RoomEventFilter = field(default_factory=RoomEventFilter)

    @cached_property
    def _rooms(self) -> _Rooms:
        return _Rooms(self.rooms, self.not_rooms)

    def takes_room(self, room_id: str) -> bool:
        """Whether a room passes. Applied before the filters of its kinds of events."""
        return self._rooms.take(room_id)


@dataclass(frozen=True)
class Filter:
    """A whole filter, as /sync takes one."""

    event_fields: tuple[tuple[str, ...], ...] | None = None
    """The properties of an event to return, each the names of its path; None for all."""
    event_format: Literal["client", "federation"] = "client"
    presence: EventFilter = field(default_factory=EventFilter)
    account_data: EventFilter = field(default_factory=EventFilter)
    room: RoomFilter = field(default_factory=RoomFilter)

    @property
    def lazy_load_members(self) -> bool:
        """Whether /sync leaves out the memberships of those who have sent nothing that it returns."""
        return self.room.state.lazy_load_members

    @property
    def include_redundant_members(self) -> bool:
        """Whether /sync sends memberships that it has sent before."""
        return self.room.state.include_redundant_members

    @property
    def unread_thread_notifications(self) -> bool:
        """Whether /sync counts notifications by thread."""
        return self.room.timeline.unread_thread_notifications


def parse_filter(definition: Any) -> Filter:
    """The filter of a definition as POST …/filter and /sync take it.

    Raises M_BAD_JSON for a member of the wrong type, M_INVALID_PARAM for one of the wrong value.
    """
    members = _Members(definition, "filter")
    fields = members.strings("event_fields")
    event_format = members.get("event_format", "client", str)
    if event_format not in ("client", "federation"):
        raise invalid_param("event_format is client or federation.")
    room = members.inner("room")
    return Filter(
        event_fields=None if fields is None else tuple(parse_path(path) for path in fields),
        event_format="client" if event_format == "client" else "federation",
        presence=EventFilter(**_event_filter(members.inner("presence"))),
        account_data=EventFilter(**_event_filter(members.inner("account_data"))),
        room=RoomFilter(
            rooms=room.identifiers("rooms", "!"),
            not_rooms=room.identifiers("not_rooms", "!"),
            include_leave=room.get("include_leave", False, bool),
            state=_room_event_filter(room.inner("state")),
            timeline=_room_event_filter(room.inner("timeline")),
            ephemeral=_room_event_filter(room.inner("ephemeral")),
            account_data=_room_event_filter(room.inner("account_data")),
        ),
    )


def parse_room_event_filter(definition: Any) -> RoomEventFilter:
    """The filter of a definition as /messages, /context and /search take it. Raises as `parse_filter`."""
    return _room_event_filter(_Members(definition, "filter"))


_T = TypeVar("_T")


class _Members:
    """An object of a filter definition, with its place for error messages."""

    __slots__ = ("_place", "_value")

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise bad_json(f"{place} must be an object.")
        self._value: dict[str, Any] = value
        self._place = place

    def get(self, name: str, default: _T, kind: type[_T]) -> _T:
        value = self._value.get(name, default)
        if type(value) is not kind:
            raise self._error(bad_json, name, f"must be a {'boolean' if kind is bool else 'string'}")
        return value

    def flag(self, name: str) -> bool | None:
        return self.get(name, False, bool) if name in self._value else None

    def limit(self) -> int | None:
        if "limit" not in self._value:
            return None
        limit = self._value["limit"]
        if type(limit) is not int:
            raise self._error(bad_json, "limit", "must be an integer")
        # "must be an integer greater than 0"; but clients say 0 for "no timeline", and everybody takes it as that.
        if limit < 0:
            raise self._error(invalid_param, "limit", "must not be negative")
        return limit

    def strings(self, name: str) -> tuple[str, ...] | None:
        if name not in self._value:
            return None
        value = self._value[name]
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self._error(bad_json, name, "must be a list of strings")
        if len(value) > MAX_ENTRIES:
            raise self._error(invalid_param, name, f"may have {MAX_ENTRIES} entries")
        return tuple(value)

    def identifiers(self, name: str, sigil: str) -> tuple[str, ...] | None:
        value = self.strings(name)
        if value is not None and not all(entry.startswith(sigil) for entry in value):
            raise self._error(invalid_param, name, f"must hold identifiers that begin with {sigil}")
        return value

    def inner(self, name: str) -> _Members:
        return _Members(self._value.get(name, {}), f"{self._place}.{name}")

    def _error(self, kind: Callable[[str], MatrixError], name: str, what: str) -> MatrixError:
        return kind(f"{self._place}.{name} {what}.")


def _event_filter(members: _Members) -> dict[str, Any]:
    return {
        "limit": members.limit(),
        "types": members.strings("types"),
        "not_types": members.strings("not_types"),
        "senders": members.identifiers("senders", "@"),
        "not_senders": members.identifiers("not_senders", "@"),
    }


def _room_event_filter(members: _Members) -> RoomEventFilter:
    return RoomEventFilter(
        **_event_filter(members),
        rooms=members.identifiers("rooms", "!"),
        not_rooms=members.identifiers("not_rooms", "!"),
        contains_url=members.flag("contains_url"),
        lazy_load_members=members.get("lazy_load_members", False, bool),
        include_redundant_members=members.get("include_redundant_members", False, bool),
        unread_thread_notifications=members.get("unread_thread_notifications", False, bool),
    )
