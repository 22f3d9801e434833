from typing import Any

import pytest

from matrix.events import build_event
from matrix.policy_servers import KEY_ID, POLICY, policy_server_of
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey, sign_event

VERSION = ROOM_VERSIONS["12"]
OURS, THEIRS = SigningKey.generate("ours"), SigningKey.generate("policy_server")
CONTENT = {"via": "policy.example", "public_keys": {"ed25519": THEIRS.verify_key_base64}}


def an_event(kind: str = "m.room.message", state_key: str | None = None) -> dict[str, Any]:
    event, _ = build_event(
        room_version=VERSION,
        room_id="!room",
        sender="@alice:test.example",
        type=kind,
        state_key=state_key,
        content={"body": "hello"},
        prev_events=["$before"],
        auth_events=[],
        depth=2,
        origin_server_ts=1,
        server_name="test.example",
        signing_key=OURS,
    )
    return event.pdu


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"via": "policy.example"},
        {**CONTENT, "via": 7},
        {**CONTENT, "public_keys": {}},
        {**CONTENT, "public_keys": []},
    ],
)
def test_what_names_no_server_with_a_key_is_no_policy_server(content: Any) -> None:
    assert policy_server_of(content, lambda _: True) is None


def test_a_server_without_members_in_the_room_is_not_asked() -> None:
    asked: list[str] = []
    assert policy_server_of(CONTENT, lambda server: bool(asked.append(server))) is None
    assert asked == ["policy.example"]


def test_an_event_is_recommended_by_the_signature_of_the_key_in_the_rooms_state() -> None:
    policy = policy_server_of(CONTENT, lambda _: True)
    assert policy is not None
    assert THEIRS.key_id == KEY_ID
    pdu = an_event()
    assert not policy.recommends(pdu, VERSION)
    signed = sign_event(pdu, VERSION, "policy.example", THEIRS)
    assert policy.recommends(signed, VERSION)
    assert not policy.recommends(
        sign_event(pdu, VERSION, "policy.example", SigningKey.generate("policy_server")), VERSION
    )
    assert not policy.recommends(sign_event(pdu, VERSION, "elsewhere.example", THEIRS), VERSION)
    assert not policy.recommends({**signed, "depth": 3}, VERSION)


def test_only_the_event_that_sets_the_policy_server_needs_no_signature() -> None:
    policy = policy_server_of(CONTENT, lambda _: True)
    assert policy is not None
    assert policy.recommends(an_event(*POLICY), VERSION)
    assert not policy.recommends(an_event("m.room.policy", "other"), VERSION)
    assert not policy.recommends(an_event("m.room.policy"), VERSION)


def test_a_key_that_is_none_recommends_nothing() -> None:
    for key in ("", "AAAA", "not base64!"):
        policy = policy_server_of({**CONTENT, "public_keys": {"ed25519": key}}, lambda _: True)
        assert policy is not None
        assert not policy.recommends(sign_event(an_event(), VERSION, "policy.example", THEIRS), VERSION)
