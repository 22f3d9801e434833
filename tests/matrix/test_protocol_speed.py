"""What the protocol core costs on the way of one message: printed (`pytest -s`), and bounded loosely.

The bounds are ten times what an idle machine needs, so that they fail for a wrong algorithm and not for a busy machine.
"""

from __future__ import annotations

from collections.abc import Callable
from timeit import repeat
from typing import Any

import orjson
import pytest

from matrix.auth_rules import auth_event_keys, check_against_state, check_event_alone
from matrix.events import Event, build_event, check_format
from matrix.json_input import parse_json
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey, verify_event_signature

V12 = ROOM_VERSIONS["12"]
KEY = SigningKey("ed25519:a", bytes(range(32)))
CONTENT = {"msgtype": "m.text", "body": "Hello, how are you?"}


def _build(**arguments: Any) -> tuple[Event, bytes]:
    defaults = {"prev_events": [], "auth_events": [], "depth": 1, "origin_server_ts": 1_700_000_000_000}
    return build_event(
        **{
            **defaults,
            "room_version": V12,
            "sender": "@alice:example.org",
            "server_name": "example.org",
            "signing_key": KEY,
            **arguments,
        }
    )


CREATE, _ = _build(room_id=None, type="m.room.create", state_key="", content={"room_version": "12"})
BOB = "@bob:example.org"


def _in_room(**arguments: Any) -> tuple[Event, bytes]:
    return _build(room_id=CREATE.room_id, **arguments)


LEVELS, _ = _in_room(type="m.room.power_levels", state_key="", content={"users": {BOB: 50}, "events": {"m.x": 50}})
MEMBER, _ = _in_room(type="m.room.member", state_key=BOB, sender=BOB, content={"membership": "join"})
STATE = {(event.type, event.state_key or ""): event for event in (CREATE, LEVELS, MEMBER)}
BY_ID = {event.event_id: event for event in STATE.values()}
MESSAGE = {
    "type": "m.room.message",
    "state_key": None,
    "sender": BOB,
    "content": CONTENT,
    "prev_events": [MEMBER.event_id],
    "auth_events": [LEVELS.event_id, MEMBER.event_id],
    "depth": 4,
}
EVENT, CANONICAL = _in_room(**MESSAGE)
BODY = orjson.dumps(CONTENT)


@pytest.mark.parametrize(
    ("what", "bound", "work"),
    [
        ("parse the body of a request", 30, lambda: parse_json(BODY)),
        ("select the auth events", 10, lambda: auth_event_keys(EVENT.type, BOB, None, CONTENT, V12)),
        ("build, hash and sign a message", 300, lambda: _in_room(**MESSAGE)),
        ("build one with 60,000 bytes", 1000, lambda: _in_room(**{**MESSAGE, "content": {"body": "x" * 60_000}})),
        ("read an event whose id is known", 10, lambda: Event.from_pdu(EVENT.pdu, V12, EVENT.event_id)),
        ("read an event and compute its id", 60, lambda: Event.from_pdu(EVENT.pdu, V12)),
        ("check the format", 60, lambda: check_format(EVENT.pdu, V12)),
        ("check the format of known bytes", 40, lambda: check_format(EVENT.pdu, V12, CANONICAL)),
        ("check a message against its auth events", 20, lambda: check_event_alone(EVENT, BY_ID)),
        ("check a message against a state", 20, lambda: check_against_state(EVENT, STATE)),
        (
            "verify a signature",
            600,
            lambda: verify_event_signature(EVENT.pdu, V12, "example.org", KEY.key_id, KEY.verify_key),
        ),
    ],
)
def test_a_step_of_a_message_s_way_takes_microseconds(what: str, bound: float, work: Callable[[], object]) -> None:
    rounds = 300
    microseconds = min(repeat(work, number=rounds, repeat=10)) / rounds * 1e6
    print(f"\n{what}: {microseconds:.2f} µs")
    assert microseconds < bound
