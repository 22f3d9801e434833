"""Signatures: laws of signing and verifying, and how malformed ones fail."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import canonical_objects, event_arguments

from matrix.events import build_event
from matrix.hashes import content_hash_matches, reference_hash
from matrix.redaction import redact
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.signatures import (
    SigningKey,
    servers_that_must_sign,
    sign_json,
    signature_is_valid,
    verify_event_signature,
    verify_json_signature,
)

KEY = SigningKey("ed25519:a", bytes(range(32)))
OTHER = SigningKey("ed25519:b", bytes(32))
NEWER = st.sampled_from([version for version in ROOM_VERSIONS.values() if not version.references_carry_hashes])


@given(canonical_objects)
def test_what_was_signed_verifies(value: dict[str, Any]) -> None:
    value.pop("signatures", None)
    signed = sign_json(value, "x", KEY)
    assert verify_json_signature(signed, "x", KEY.key_id, KEY.verify_key)
    assert not verify_json_signature(signed, "x", KEY.key_id, OTHER.verify_key)
    assert not verify_json_signature(signed, "y", KEY.key_id, KEY.verify_key)


@given(canonical_objects, canonical_objects)
def test_unsigned_and_further_signatures_do_not_matter(value: dict[str, Any], unsigned: dict[str, Any]) -> None:
    value.pop("signatures", None)
    signed = sign_json({**value, "unsigned": unsigned}, "x", KEY)
    signed = sign_json({**signed, "unsigned": {}}, "y", OTHER)
    signed = sign_json(signed, "x", OTHER)
    assert verify_json_signature(signed, "x", KEY.key_id, KEY.verify_key)
    assert verify_json_signature(signed, "y", OTHER.key_id, OTHER.verify_key)
    assert set(signed["signatures"]["x"]) == {KEY.key_id, OTHER.key_id}


@given(canonical_objects, st.text("abc", min_size=1))
def test_any_change_breaks_the_signature(value: dict[str, Any], key: str) -> None:
    value.pop("signatures", None)
    signed = sign_json(value, "x", KEY)
    assert not verify_json_signature({**signed, "new" + key: 1}, "x", KEY.key_id, KEY.verify_key)


@given(NEWER, event_arguments(), st.data())
def test_an_event_keeps_id_and_signature_when_redacted(
    version: RoomVersion, arguments: dict[str, Any], data: st.DataObject
) -> None:
    if arguments["type"] == "m.room.create":
        arguments["state_key"] = ""
    is_create_of_hash = version.room_id_is_create_event_id and arguments["type"] == "m.room.create"
    event, _ = build_event(
        room_version=version,
        room_id=None if is_create_of_hash else "!r:example.org",
        server_name="example.org",
        signing_key=KEY,
        **arguments,
    )
    redacted = redact({**event.pdu, "unsigned": {"age": 1}}, version)
    assert reference_hash(redacted, version) == reference_hash(event.pdu, version)
    assert verify_event_signature(redacted, version, "example.org", KEY.key_id, KEY.verify_key)
    # The content hash covers what redaction takes away, and nothing that it adds: only a difference breaks it.
    assert content_hash_matches(redacted, version) == (redacted["content"] == event.content)


@pytest.mark.parametrize(
    "signatures",
    [
        *(None, [], "x", {}, {"x": None}, {"x": []}, {"x": {"rsa:a": "A"}}),
        *({"x": {"ed25519:a": signature}} for signature in (1, "!", "AAAA", "é")),
    ],
)
def test_malformed_signatures_do_not_verify(signatures: Any) -> None:
    assert not verify_json_signature({"signatures": signatures}, "x", "ed25519:a", KEY.verify_key)


def test_a_value_that_is_not_canonical_does_not_verify() -> None:
    signature = {"x": {KEY.key_id: KEY.sign(b"{}")}}
    assert not verify_json_signature({"a": 0.5, "signatures": signature}, "x", KEY.key_id, KEY.verify_key)


def test_a_verify_key_of_the_wrong_length_verifies_nothing() -> None:
    assert signature_is_valid(b"m", KEY.sign(b"m"), KEY.verify_key)
    assert not signature_is_valid(b"m", KEY.sign(b"m"), KEY.verify_key[:31])


@pytest.mark.parametrize(("key_id", "seed"), [("rsa:a", bytes(32)), ("ed25519:a", bytes(31)), ("ed25519:a", bytes(64))])
def test_a_signing_key_is_ed25519_with_a_seed_of_32_bytes(key_id: str, seed: bytes) -> None:
    with pytest.raises(ValueError, match="seed of 32 bytes"):
        SigningKey(key_id, seed)


def test_a_new_key_is_random_and_does_not_show_its_secret() -> None:
    one, two = SigningKey.generate("1"), SigningKey.generate("1")
    assert one.seed != two.seed
    assert one.key_id == "ed25519:1"
    assert len(one.verify_key_base64) == 43
    assert repr(one) == "SigningKey('ed25519:1')"


def _member(sender: str, **content: Any) -> dict[str, Any]:
    return {"type": "m.room.member", "sender": sender, "event_id": "$e:z", "content": content}


def test_the_sender_s_server_must_sign() -> None:
    message = {"type": "m.room.message", "sender": "@a:x", "content": {"membership": "invite", "third_party_invite": 1}}
    assert servers_that_must_sign(message, ROOM_VERSIONS["12"]) == {"x"}
    assert servers_that_must_sign(_member("@a:x", membership="invite"), ROOM_VERSIONS["3"]) == {"x"}


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_server_of_the_event_id_must_sign_in_versions_1_and_2(version: str) -> None:
    assert servers_that_must_sign(_member("@a:x"), ROOM_VERSIONS[version]) == {"x", "z"}


def test_a_third_party_invite_may_come_from_another_server_than_its_sender_s() -> None:
    invite = _member("@a:x", membership="invite", third_party_invite={})
    assert servers_that_must_sign(invite, ROOM_VERSIONS["12"]) == set()
    assert servers_that_must_sign(invite, ROOM_VERSIONS["1"]) == {"z"}
    assert servers_that_must_sign({**invite, "content": {"third_party_invite": {}}}, ROOM_VERSIONS["12"]) == {"x"}


def test_the_server_that_authorises_a_join_must_sign_from_version_8_on() -> None:
    join = _member("@a:x", membership="join", join_authorised_via_users_server="@b:y")
    assert servers_that_must_sign(join, ROOM_VERSIONS["7"]) == {"x"}
    assert servers_that_must_sign(join, ROOM_VERSIONS["8"]) == {"x", "y"}
    malformed = _member("@a:x", join_authorised_via_users_server=1)
    assert servers_that_must_sign(malformed, ROOM_VERSIONS["8"]) == {"x"}
