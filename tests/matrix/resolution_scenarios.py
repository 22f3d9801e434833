"""Scenarios of state resolution, read from `fixtures/state_resolution`.

A scenario is a few events after a beginning that several share, each built on the state after the events that it follows (or
on auth events of its own choosing), and then either branches to merge or states to resolve. Users are written as short names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matrix.auth_rules import auth_event_keys
from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS, EventIdFormat
from matrix.state_resolution import resolve

FIXTURES = Path(__file__).with_name("fixtures") / "state_resolution"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json") if not path.stem.startswith("begin_"))


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return content


def outcomes() -> list[tuple[str, str]]:
    """Each scenario with each room version that it has an outcome for."""
    return [
        (name, version) for name in NAMES for outcome in read(name)["outcomes"] for version in outcome["room_versions"]
    ]


class Scenario:
    """One scenario in one room version: `events` by id, the `states` to resolve, and what is `expected`."""

    def __init__(self, name: str, room_version: str) -> None:
        definition = read(name)
        self.room_version = ROOM_VERSIONS[room_version]
        self.events: dict[str, Event] = {}
        self.ids: dict[str, str] = {}
        self.state_after: dict[str, dict[tuple[str, str], str]] = {}
        for one in read(definition["begin"])["events"] + definition["events"]:
            self._add(one)
        if "merge" in definition:
            self.states = [self.state_after[name] for name in definition["merge"]]
        else:
            self.states = [dict(map(self._entry, names)) for names in definition["states"]]
        (self.expected,) = (each for each in definition["outcomes"] if room_version in each["room_versions"])

    @property
    def room_id(self) -> str:
        if self.room_version.room_id_is_create_event_id:
            return "!" + self.ids["create"][1:]
        return "!room:example.org"

    @property
    def resolved(self) -> dict[tuple[str, str], str | None]:
        """The event id that is expected at each key that the scenario is about; None for no event."""
        expected: dict[tuple[str, str], str | None] = {}
        for key, name in self.expected["resolved"].items():
            event_type, _, state_key = key.partition("/")
            expected[event_type, user(state_key) if state_key else ""] = None if name is None else self.ids[name]
        return expected

    def _entry(self, name: str) -> tuple[tuple[str, str], str]:
        event = self.events[self.ids[name]]
        assert event.state_key is not None
        return (event.type, event.state_key), event.event_id

    def _add(self, one: dict[str, Any]) -> None:
        rules = self.room_version
        states = [self.state_after[name] for name in one["after"]]
        state = resolve(rules, states, self.events).state
        event_type, sender, state_key, content = one["type"], user(one["sender"]), one["state_key"], one["content"]
        if event_type == "m.room.member":
            state_key = user(state_key)
        elif event_type == "m.room.power_levels":
            creators = {"alice"} if rules.privileged_creators else set()
            users = {user(name): level for name, level in content["users"].items() if name not in creators}
            content = {**content, "users": users}
        elif event_type == "m.room.create":
            content = {"room_version": rules.identifier}
            if not rules.creator_is_create_sender:
                content["creator"] = sender
        keys = auth_event_keys(event_type, sender, state_key, content, rules)
        previous = [self.ids[name] for name in one["after"]]
        pdu: dict[str, Any] = {
            "type": event_type,
            "sender": sender,
            "state_key": state_key,
            "content": content,
            "depth": 1 + max((self.events[event_id].depth for event_id in previous), default=0),
            "origin_server_ts": one.get("at", len(self.events)) * 1_000,
            "prev_events": self._references(previous),
            "auth_events": self._references([state[key] for key in keys if key in state]),
            "hashes": {"sha256": one["name"]},
            "signatures": {},
        }
        if event_type != "m.room.create" or not rules.room_id_is_create_event_id:
            pdu["room_id"] = self.room_id
        if rules.event_id_format is EventIdFormat.OPAQUE_WITH_DOMAIN:
            pdu["event_id"] = f"${one['name']}:example.org"
        event = Event.from_pdu(pdu, rules)
        self.ids[one["name"]] = event.event_id
        self.events[event.event_id] = event
        self.state_after[one["name"]] = {**state, (event_type, state_key): event.event_id}

    def _references(self, event_ids: list[str]) -> list[Any]:
        if self.room_version.references_carry_hashes:
            return [[event_id, {"sha256": "made-up"}] for event_id in event_ids]
        return event_ids


def user(name: str) -> str:
    return f"@{name}:example.org"
