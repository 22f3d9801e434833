"""Generated rooms: several servers that build on what each has seen, fork, and merge again.

A room is a pure function of its room version and seed. Every event is valid where it was made: it passes the
authorisation rules against its auth events and against the state before it, or it is marked as rejected, changes no state
and nothing is built on it. Content hashes and signatures are made up; ids are what the room version says.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

from matrix.auth_rules import AuthError, auth_event_keys, check_against_state, check_event_alone
from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS, EventIdFormat
from matrix.state_resolution import resolve

StateKey = tuple[str, str]
State = Mapping[StateKey, str]

_START = 1_700_000_000_000
_LEVELS = (0, 1, 25, 50, 51, 75, 100)
_MAX_PREV_EVENTS = 6


class RoomDag:
    """A room that grows. `events` has every event by id, `state_after` the state after each accepted one."""

    def __init__(self, room_version: str, seed: int, *, servers: int = 4, users_per_server: int = 5) -> None:
        self.room_version = ROOM_VERSIONS[room_version]
        self.random = random.Random(seed)
        self.events: dict[str, Event] = {}
        self.state_after: dict[str, dict[StateKey, str]] = {}
        self.servers = [f"s{number}.test" for number in range(servers)]
        self.users = {server: [f"@u{n}:{server}" for n in range(users_per_server)] for server in self.servers}
        self.everyone = [user for users in self.users.values() for user in users]
        self.creator = self.everyone[0]
        self.known: dict[str, set[str]] = {server: set() for server in self.servers}
        self.extremities: dict[str, set[str]] = {server: set() for server in self.servers}
        self.skew = {server: self.random.randrange(-200_000, 200_000) for server in self.servers}
        self.merges: list[tuple[State, ...]] = []
        self._resolved: dict[frozenset[str], dict[StateKey, str]] = {}
        self._number = 0
        self._begin()

    # How the room begins.

    def _begin(self) -> None:
        home = self.servers[0]
        creator = self.creator
        create: dict[str, Any] = {"room_version": self.room_version.identifier}
        if not self.room_version.creator_is_create_sender:
            create["creator"] = creator
        second = self.users[self.servers[1 % len(self.servers)]][0]
        if self.room_version.privileged_creators:
            create["additional_creators"] = [second]
        self._send(home, creator, "m.room.create", "", create)
        self._send(home, creator, "m.room.member", creator, {"membership": "join"})
        users = {} if self.room_version.privileged_creators else {creator: 100, second: 100}
        for user in self.random.sample(self.everyone[1:], len(self.everyone) // 3):
            if user != second:
                users[user] = self.random.choice((50, 50, 75, 100))
        self._send(home, creator, "m.room.power_levels", "", {"users": users, "invite": 0, "state_default": 50})
        self._send(home, creator, "m.room.join_rules", "", {"join_rule": "public"})
        for server in self.servers[1:]:
            self._hear(server, home)
        for user in self.everyone[1:]:
            self._send(user.partition(":")[2], user, "m.room.member", user, {"membership": "join"})
        for server in self.servers:
            for other in self.servers:
                self._hear(server, other)

    @property
    def room_id(self) -> str:
        if self.room_version.room_id_is_create_event_id:
            return "!" + next(iter(self.events))[1:]
        return "!room:" + self.servers[0]

    # How it goes on.

    def grow(self, events: int) -> RoomDag:
        """Let `events` more events happen; servers hear of each other's now and then."""
        target = len(self.events) + events
        while len(self.events) < target:
            server = self.random.choice(self.servers)
            if self.random.random() < 0.2:
                self._hear(server, self.random.choice(self.servers))
            # A server sends a few in a row, so that forks have some length.
            for _ in range(self.random.randrange(1, 4)):
                sender = self._somebody(server)
                self._send(server, sender, *self._something(server, sender))
        return self

    def merge(self) -> dict[StateKey, str]:
        """Everybody hears of everything; the state that the room then has."""
        for server in self.servers:
            for other in self.servers:
                self._hear(server, other)
        return self.state_before(self.extremities[self.servers[0]])

    def state_before(self, prev_events: Iterable[str]) -> dict[StateKey, str]:
        """The state before an event with these previous events. A resolution that was not trivial joins `merges`."""
        key = frozenset(prev_events)
        if key not in self._resolved:
            states: list[State] = []
            for event_id in sorted(key):
                if self.state_after[event_id] not in states:
                    states.append(self.state_after[event_id])
            if len(states) > 1:
                self.merges.append(tuple(states))
            self._resolved[key] = resolve(self.room_version, states, self.events).state
        return self._resolved[key]

    def odd_state_sets(self) -> tuple[State, ...]:
        """States that no merge of this room has: from far apart, and with older events than they should have.

        That is what a server computes from the answer of another one that is wrong about the state (MSC4297).
        """
        accepted = list(self.state_after)
        chosen = [self.state_after[event_id] for event_id in self.random.sample(accepted, self.random.randrange(2, 5))]
        states: list[dict[StateKey, str]] = [dict(state) for state in chosen]
        for state in states:
            for _ in range(self.random.randrange(0, 4)):
                key = self.random.choice([*state, *[key for key in state if key[0] != "m.room.member"]])
                older = self.random.choice(accepted)
                if key[0] != "m.room.create" and key in self.state_after[older]:
                    state[key] = self.state_after[older][key]
        return tuple(states)

    # One event.

    def _hear(self, server: str, other: str) -> None:
        """A server hears of all that another one knows."""
        self.known[server] |= self.known[other]
        tips = self.extremities[server] | self.extremities[other]
        referenced = {prev for event_id in self.known[server] for prev in self.events[event_id].prev_events}
        self.extremities[server] = tips - referenced

    def _send(self, server: str, sender: str, type: str, state_key: str | None, content: dict[str, Any]) -> None:
        """Send an event if it is allowed; of those that are not, keep some as rejected events."""
        prev_events = sorted(self.extremities[server])
        if len(prev_events) > _MAX_PREV_EVENTS:
            prev_events = self.random.sample(prev_events, _MAX_PREV_EVENTS)
        state = self.state_before(prev_events) if prev_events else {}
        keys = auth_event_keys(type, sender, state_key, content, self.room_version)
        auth_events = [state[key] for key in keys if key in state]
        event = self._event(server, sender, type, state_key, content, prev_events, auth_events)
        try:
            check_event_alone(event, self.events)
            check_against_state(event, {key: self.events[event_id] for key, event_id in state.items()})
        except AuthError:
            if self.random.random() < 0.05 and event.event_id not in self.events:
                event.rejected = True
                self.events[event.event_id] = event
            return
        self.events[event.event_id] = event
        self.state_after[event.event_id] = state if state_key is None else {**state, (type, state_key): event.event_id}
        self.known[server].add(event.event_id)
        self.extremities[server] = self.extremities[server].difference(prev_events) | {event.event_id}

    def _event(
        self,
        server: str,
        sender: str,
        type: str,
        state_key: str | None,
        content: dict[str, Any],
        prev_events: list[str],
        auth_events: list[str],
    ) -> Event:
        self._number += 1
        signatures = {server: {"ed25519:1": "made-up"}}
        authoriser = content.get("join_authorised_via_users_server")
        if authoriser:
            signatures[authoriser.partition(":")[2]] = {"ed25519:1": "made-up"}
        pdu: dict[str, Any] = {
            "type": type,
            "sender": sender,
            "content": content,
            "depth": 1 + max((self.events[event_id].depth for event_id in prev_events), default=0),
            # Coarse, so that some are equal, and wrong by minutes on most servers.
            "origin_server_ts": _START + (self._number // 3) * 1_000 + self.skew[server],
            "prev_events": self._references(prev_events),
            "auth_events": self._references(auth_events),
            "hashes": {"sha256": f"made-up-{self._number}"},
            "signatures": signatures,
        }
        if state_key is not None:
            pdu["state_key"] = state_key
        if type != "m.room.create" or not self.room_version.room_id_is_create_event_id:
            pdu["room_id"] = self.room_id
        if self.room_version.event_id_format is EventIdFormat.OPAQUE_WITH_DOMAIN:
            pdu["event_id"] = f"${self._number}:{server}"
        return Event.from_pdu(pdu, self.room_version)

    def _references(self, event_ids: list[str]) -> list[Any]:
        if self.room_version.references_carry_hashes:
            return [[event_id, {"sha256": "made-up"}] for event_id in event_ids]
        return event_ids

    # What happens in rooms.

    def _somebody(self, server: str) -> str:
        """A user of the server: mostly one who is in the room, now and then one who is not."""
        state = self.state_before(sorted(self.extremities[server]))
        members = [user for user in self.users[server] if self._membership(state, user) == "join"]
        return self.random.choice(members if members and self.random.random() < 0.85 else self.users[server])

    def _membership(self, state: State, user: str) -> str:
        member = state.get(("m.room.member", user))
        membership: str = self.events[member].content["membership"] if member else "leave"
        return membership

    def _something(self, server: str, sender: str) -> tuple[str, str | None, dict[str, Any]]:
        """Type, state key and content of something that somebody might do, allowed or not."""
        state = self.state_before(sorted(self.extremities[server]))
        if self._membership(state, sender) != "join":
            return self._come_in(state, sender)
        other = self.random.choice(self.everyone[1:])
        outside = [user for user in self.everyone if self._membership(state, user) not in ("join", "invite")]
        match self.random.choices(
            ("message", "topic", "tag", "ban", "kick", "let in", "leave", "profile", "levels", "join rules"),
            (4, 6, 6, 5, 4, 6 * len(outside), 3 * (sender != self.creator), 6, 12, 6),
        )[0]:
            case "message":
                return "m.room.message", None, {"body": str(self._number)}
            case "topic":
                return "m.room.topic", "", {"topic": str(self._number)}
            case "tag":
                return "test.tag", self.random.choice(("a", "b", sender)), {"value": self._number}
            case "ban":
                return "m.room.member", other, {"membership": "ban"}
            case "kick":
                return "m.room.member", other, {"membership": "leave"}
            case "let in":
                # Whoever is banned is unbanned first.
                other = self.random.choice(outside)
                banned = self._membership(state, other) == "ban"
                return "m.room.member", other, {"membership": "leave" if banned else "invite"}
            case "leave":
                return "m.room.member", sender, {"membership": "leave"}
            case "profile":
                return "m.room.member", sender, {"membership": "join", "displayname": str(self._number)}
            case "levels":
                return "m.room.power_levels", "", self._levels(state, sender)
            case _:
                return "m.room.join_rules", "", self._join_rules()

    def _come_in(self, state: State, sender: str) -> tuple[str, str | None, dict[str, Any]]:
        content: dict[str, Any] = {"membership": "join"}
        rules = state.get(("m.room.join_rules", ""))
        rule = self.events[rules].content["join_rule"] if rules else "invite"
        if self.room_version.knocking and rule.startswith("knock") and self.random.random() < 0.4:
            content["membership"] = "knock"
        elif self.room_version.restricted_join_rule and rule.endswith("restricted"):
            content["join_authorised_via_users_server"] = self.random.choice(self.everyone)
        return "m.room.member", sender, content

    def _join_rules(self) -> dict[str, Any]:
        rules = ["public", "public", "invite"]
        if self.room_version.knocking:
            rules.append("knock")
        if self.room_version.restricted_join_rule:
            rules.append("restricted")
        if self.room_version.knock_restricted_join_rule:
            rules.append("knock_restricted")
        rule = self.random.choice(rules)
        if rule.endswith("restricted"):
            return {"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": "!elsewhere:s0.test"}]}
        return {"join_rule": rule}

    def _levels(self, state: State, sender: str) -> dict[str, Any]:
        current = state.get(("m.room.power_levels", ""))
        content: dict[str, Any] = dict(self.events[current].content) if current else {}
        level: Any = self.random.choice(_LEVELS)
        if not self.room_version.integer_power_levels and self.random.random() < 0.2:
            level = str(level)
        match self.random.choice(("user", "user", "user", "user", "step down", "event", "named")):
            case "user":
                content["users"] = {**content.get("users", {}), self.random.choice(self.everyone[1:]): level}
            case "step down" if sender != self.creator:
                content["users"] = {**content.get("users", {}), sender: level}
            case "event":
                types = ("m.room.topic", "test.tag", "m.room.join_rules", "m.room.power_levels")
                content["events"] = {**content.get("events", {}), self.random.choice(types): min(int(level), 75)}
            case _:
                name = self.random.choice(("ban", "kick", "invite", "state_default", "users_default"))
                content[name] = min(int(level), 25 if name == "users_default" else 75)
        if self.room_version.privileged_creators:
            creators = (self.creator, self.users[self.servers[1 % len(self.servers)]][0])
            content["users"] = {user: level for user, level in content.get("users", {}).items() if user not in creators}
        return content
