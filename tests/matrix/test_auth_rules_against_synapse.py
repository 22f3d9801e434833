"""Ids, hashes, redaction and authorisation of generated events are the same here and in Synapse. Prints what was compared.

Where Synapse goes beyond the specification, or is silent on malformed input, no such event is generated: its m.federate
also keeps remote *targets* out; it compares power levels under a state key with those under the same state key; it lets
a redaction of version 1 pass that redacts nothing; unsigned joins are another function's business.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from auth_rooms import ALICE, ALL_VERSIONS, BOB, CREATOR, REMOTE, AuthRoom, until_version
from peer_environment import synapse_python

from matrix.auth_rules import AuthError, check_event_alone
from matrix.events import Event
from matrix.hashes import content_hash
from matrix.power_level_rules import check_power_levels
from matrix.power_levels import CREATOR_LEVEL, BadPowerLevel
from matrix.redaction import redact
from matrix.signatures import SigningKey, sign_json

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(900)]

USERS = [CREATOR, ALICE, BOB, REMOTE]
MEMBERSHIPS = ["join", "join", "invite", "leave", "ban", "knock"]
JOIN_RULES = ["public", "invite", "knock", "restricted", "knock_restricted", "private"]
IDENTITY_KEY = SigningKey("ed25519:0", bytes(range(32)))


class Generator:
    """Rooms with a random state, and events that may or may not be allowed in them."""

    def __init__(self, version: str, seed: int) -> None:
        self.random = random.Random(f"{version}/{seed}")
        self.version = version

    def maybe(self, chance: float) -> bool:
        return self.random.random() < chance

    def level(self) -> Any:
        level = self.random.choice([-1, 0, 0, 1, 10, 49, 50, 50, 51, 99, 100, 101])
        if self.maybe(0.03):
            # Floats are no canonical JSON; strings are, but no levels that a later room can have.
            odd: list[Any] = [str(level), f" +{abs(level)} "]
            return self.random.choice([*odd, level + 0.5] if self.version in until_version(5) else odd)
        return level

    def levels(self, current: dict[str, Any] | None = None) -> dict[str, Any]:
        """A content of power levels: of its own, or some entries away from a current one."""
        if current is not None and self.maybe(0.9):
            content: dict[str, Any] = json.loads(json.dumps(current))
            for _ in range(self.random.randint(0, 2)):
                target = self.random.choice([content, *(v for v in content.values() if isinstance(v, dict))])
                if target and self.maybe(0.3):
                    target.pop(self.random.choice(list(target)))
                elif target is content:
                    content[self.random.choice(["ban", "kick", "invite", "redact", "users_default"])] = self.level()
                else:
                    entry = self.random.choice([*target, self.random.choice(USERS)])
                    target[entry] = self.level()
            return content
        names = ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"]
        content = {name: self.level() for name in names if self.maybe(0.3)}
        if self.maybe(0.9):
            users = USERS[1:] if self.version == "12" and self.maybe(0.9) else USERS
            content["users"] = {user: self.level() for user in users if self.maybe(0.6)}
        if self.maybe(0.6):
            types = ["m.room.name", "m.room.message", "m.room.power_levels", "m.room.redaction", "m.room.aliases"]
            content["events"] = {type: self.level() for type in types if self.maybe(0.4)}
        if self.maybe(0.3):
            content["notifications"] = {"room": self.level()}
        return content

    def room(self) -> AuthRoom:
        create: dict[str, Any] = {}
        if self.maybe(0.1):
            create["additional_creators"] = [self.random.choice(USERS[1:])]
        room = AuthRoom(self.version, hashed=True, **create)
        if self.maybe(0.03):
            room.state = {("m.room.create", ""): room.create}
            return room
        for user in USERS[1:]:
            if self.maybe(0.9):
                room.member(user, self.random.choice(MEMBERSHIPS))
        if self.maybe(0.9):
            room.join_rule(self.random.choice(JOIN_RULES))
        if self.maybe(0.8):
            levels = room.event("m.room.power_levels", CREATOR, "", self.levels())
            try:
                check_power_levels(levels, room.create, None, CREATOR_LEVEL)
            except (AuthError, BadPowerLevel):
                return self.room()
            room.state["m.room.power_levels", ""] = levels
        if self.maybe(0.5):
            content = {"display_name": "b", "public_key": IDENTITY_KEY.verify_key_base64}
            room.set("m.room.third_party_invite", content, "token", self.random.choice(USERS))
        return room

    def event(self, room: AuthRoom) -> Event:
        sender = self.random.choice(USERS)
        kind = self.random.choice(
            ["member"] * 5 + ["levels"] * 3 + ["state", "message", "invite", "redaction", "aliases"]
        )
        if kind == "member":
            return self.membership(room, sender)
        if kind == "levels":
            current = room.state.get(("m.room.power_levels", ""))
            return room.event("m.room.power_levels", sender, "", self.levels(current and current.content))
        if kind == "state":
            type = self.random.choice(["m.room.name", "m.room.topic", "m.room.join_rules"])
            return room.event(type, sender, self.random.choice(["", "", "key", "@", sender, ALICE]), {"x": 1})
        if kind == "invite":
            return room.event("m.room.third_party_invite", sender, "token2", {"display_name": "x"})
        if kind == "redaction":
            redacts = self.random.choice(["$e:x", "$e:y"])
            return room.event("m.room.redaction", sender, None, {"redacts": redacts}, redacts=redacts)
        if kind == "aliases":
            return room.event("m.room.aliases", sender, self.random.choice(["x", "y", "", None]), {"aliases": []})
        return room.event("m.room.message", sender, None, {"body": "x", "n": [1, None, True, {"é\0": "\u2028"}]})

    def membership(self, room: AuthRoom, sender: str) -> Event:
        target = sender if self.maybe(0.6) else self.random.choice(USERS)
        content: dict[str, Any] = {"membership": self.random.choice([*MEMBERSHIPS, "join", "invite", "x"])}
        if content["membership"] == "join" and self.maybe(0.5):
            content["join_authorised_via_users_server"] = self.random.choice(USERS)
        if content["membership"] == "invite" and self.maybe(0.3):
            signed = {"mxid": self.random.choice([target, target, ALICE]), "token": "token"}
            content["third_party_invite"] = {"display_name": "b", "signed": sign_json(signed, "id", IDENTITY_KEY)}
            if self.maybe(0.1):
                content["third_party_invite"]["signed"]["more"] = 1
        prev_events = [room.create.event_id] if self.maybe(0.1) else None
        signatures = {server: {"ed25519:a": "s"} for server in ("x", "y")}
        return room.event("m.room.member", sender, target, content, prev_events=prev_events, signatures=signatures)

    def disturb(self, room: AuthRoom, event: Event) -> Event:
        """The event with another selection of auth events, now and then."""
        if self.maybe(0.7):
            return event
        auth_events = list(event.auth_events)
        if auth_events and self.maybe(0.5):
            auth_events.remove(self.random.choice(auth_events))
        else:
            auth_events.append(self.random.choice(list(room.state.values())).event_id)
        pdu = {**event.pdu, "auth_events": room.references(auth_events)}
        return Event.from_pdu(pdu, room.version, event.event_id if room.version.references_carry_hashes else None)


def passes_alone(room: AuthRoom, event: Event) -> bool:
    try:
        check_event_alone(event, room.by_id)
    except AuthError:
        return False
    return True


def ask_synapse(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    oracle = Path(__file__).with_name("synapse_auth_oracle.py")
    done = subprocess.run(
        [str(synapse_python()), "-I", str(oracle)],
        input="".join(json.dumps(question) + "\n" for question in questions),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_synapse_thinks_the_same_of_generated_events(version: str) -> None:
    ours, questions = [], []
    for seed in range(300):
        generator = Generator(version, seed)
        room = generator.room()
        for _ in range(10):
            event = generator.disturb(room, generator.event(room))
            known = room.by_id
            auth_events = [known[event_id] for event_id in dict.fromkeys(event.auth_events)]
            if not room.version.create_event_in_auth_events:
                auth_events.append(room.create)
            ours.append(
                {
                    "event_id": event.event_id,
                    "content_hash": content_hash(event.pdu, room.version),
                    "redacted": redact(event.pdu, room.version),
                    "on_state": room.allows(event),
                    "alone": passes_alone(room, event),
                }
            )
            questions.append(
                {
                    "room_version": version,
                    "pdu": event.pdu,
                    "state": [each.pdu for each in room.state.values()],
                    "auth": [each.pdu for each in auth_events],
                }
            )
    theirs = ask_synapse(questions)
    assert len(theirs) == len(ours)
    for mine, other, question in zip(ours, theirs, questions, strict=True):
        assert mine == other, json.dumps(question, indent=1)
    counts = Counter((answer["alone"], answer["on_state"]) for answer in ours)
    print(
        f"\nroom version {version}: {len(ours)} events; alone {counts[True, True] + counts[True, False]} allowed; "
        f"on state {counts[True, True] + counts[False, True]} allowed"
    )
    assert min(counts.values()) > 50
