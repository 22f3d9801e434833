"""Rooms as far as authorisation needs them: a version, a state, and events that are neither hashed nor signed."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from matrix.auth_rules import AuthError, auth_event_keys, check_against_state, check_event_alone
from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS, RoomVersion

CREATOR = "@creator:x"
ALICE = "@alice:x"
BOB = "@bob:x"
REMOTE = "@remote:y"

ALL_VERSIONS = tuple(ROOM_VERSIONS)


def from_version(first: int) -> list[str]:
    """The versions from one on."""
    return [str(number) for number in range(first, 13)]


def until_version(last: int) -> list[str]:
    """The versions up to one, including it."""
    return [str(number) for number in range(1, last + 1)]


class AuthRoom:
    """A room whose creator has joined; its state is what tests set, unchecked."""

    def __init__(self, version: str = "12", *, hashed: bool = False, **create_content: Any) -> None:
        """`hashed` gives the events the ids that their version makes of hashes, where it does."""
        self.version: RoomVersion = ROOM_VERSIONS[version]
        self._hashed = hashed and not self.version.references_carry_hashes
        self._ids = (f"$e{number}:x" for number in count())
        self.state: dict[tuple[str, str], Event] = {}
        content = {"room_version": version, **create_content}
        if not self.version.creator_is_create_sender:
            content.setdefault("creator", CREATOR)
        self.room_id = "!c" if self.version.room_id_is_create_event_id else "!r:x"
        self.create = self.event("m.room.create", CREATOR, "", content, event_id=None if hashed else "$c")
        self.room_id = self.create.room_id
        self.state["m.room.create", ""] = self.create
        self.member(CREATOR, "join")

    def event(
        self,
        type: str,
        sender: str,
        state_key: str | None = None,
        content: dict[str, Any] | None = None,
        *,
        event_id: str | None = None,
        prev_events: list[str] | None = None,
        auth_events: list[str] | None = None,
        **pdu: Any,
    ) -> Event:
        """An event with the auth events that the state gives it."""
        content = {} if content is None else content
        is_create = type == "m.room.create"
        if auth_events is None:
            keys = auth_event_keys(type, sender, state_key, content, self.version)
            auth_events = [self.state[key].event_id for key in keys if key in self.state]
        if prev_events is None:
            prev_events = [] if is_create else ["$before:x"]
        whole: dict[str, Any] = {
            "type": type,
            "sender": sender,
            "content": content,
            "depth": 1,
            "origin_server_ts": 1,
            "signatures": {sender.partition(":")[2]: {"ed25519:a": "s"}},
            "hashes": {"sha256": "h"},
            "prev_events": self.references(prev_events),
            "auth_events": self.references(auth_events),
        }
        if state_key is not None:
            whole["state_key"] = state_key
        if not (is_create and self.version.room_id_is_create_event_id):
            whole["room_id"] = self.room_id
        whole |= pdu
        if self._hashed:
            return Event.from_pdu(whole, self.version)
        event_id = event_id or next(self._ids)
        if self.version.references_carry_hashes:
            whole["event_id"] = event_id
        return Event.from_pdu(whole, self.version, event_id)

    def references(self, event_ids: list[str]) -> list[Any]:
        if self.version.references_carry_hashes:
            return [[event_id, {"sha256": "h"}] for event_id in event_ids]
        return list(event_ids)

    def set(self, type: str, content: dict[str, Any], state_key: str = "", sender: str = CREATOR) -> Event:
        """Put an event into the state."""
        event = self.event(type, sender, state_key, content)
        self.state[type, state_key] = event
        return event

    def member(self, user: str, membership: str) -> Event:
        """Give a user a membership."""
        return self.set("m.room.member", {"membership": membership}, user, user)

    def power(self, **content: Any) -> Event:
        """Set the power levels; before version 12 the creator has 100 unless `users` says otherwise."""
        if not self.version.privileged_creators:
            content["users"] = {CREATOR: 100, **content.get("users", {})}
        return self.set("m.room.power_levels", content)

    def join_rule(self, rule: Any) -> Event:
        """Set the join rule."""
        return self.set("m.room.join_rules", {"join_rule": rule})

    def transition(self, sender: str, target: str, membership: Any, **content: Any) -> Event:
        """An event by which `sender` gives `target` a membership."""
        return self.event("m.room.member", sender, target, {"membership": membership, **content})

    @property
    def by_id(self) -> dict[str, Event]:
        """The events of the state by id."""
        return {event.event_id: event for event in self.state.values()}

    def allows(self, event: Event) -> bool:
        """Whether the event passes the rules that depend on state."""
        try:
            check_against_state(event, self.state)
        except AuthError as error:
            assert error.reason.endswith(".")
            return False
        return True

    def refusal(self, event: Event) -> str:
        """Why the event does not pass the rules that depend on state; fails if it does."""
        with pytest.raises(AuthError) as refused:
            check_against_state(event, self.state)
        return refused.value.reason

    def refusal_alone(self, event: Event, *others: Event) -> str:
        """Why the event does not pass the rules that depend on it and its auth events; fails if it does."""
        with pytest.raises(AuthError) as refused:
            check_event_alone(event, {**self.by_id, **{other.event_id: other for other in others}})
        return refused.value.reason
