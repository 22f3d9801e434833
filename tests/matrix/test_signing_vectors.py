"""The cryptographic test vectors of the specification's appendices."""

from __future__ import annotations

from typing import Any

import pytest

from matrix.hashes import content_hash, content_hash_matches
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey, sign_event, sign_json, verify_event_signature, verify_json_signature
from matrix.unpadded_base64 import decode

KEY = SigningKey("ed25519:1", decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
# The vectors have no version; they are the same in every one that does not make ids of hashes.
V1 = ROOM_VERSIONS["1"]

JSON_VECTORS: list[tuple[dict[str, Any], str]] = [
    ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
    (
        {"one": 1, "two": "Two"},
        "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
    ),
]

EVENT_VECTORS: list[tuple[dict[str, Any], str, str]] = [
    (
        {
            "room_id": "!x:domain",
            "sender": "@a:domain",
            "origin": "domain",
            "origin_server_ts": 1000000,
            "signatures": {},
            "hashes": {},
            "type": "X",
            "content": {},
            "prev_events": [],
            "auth_events": [],
            "depth": 3,
            "unsigned": {"age_ts": 1000000},
        },
        "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
        "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
    ),
    (
        {
            "content": {"body": "Here is the message content"},
            "event_id": "$0:domain",
            "origin": "domain",
            "origin_server_ts": 1000000,
            "type": "m.room.message",
            "room_id": "!r:domain",
            "sender": "@u:domain",
            "signatures": {},
            "unsigned": {"age_ts": 1000000},
        },
        "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
        "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
    ),
]


@pytest.mark.parametrize(("value", "signature"), JSON_VECTORS)
def test_signed_json_is_as_published(value: dict[str, Any], signature: str) -> None:
    signed = sign_json(value, "domain", KEY)
    assert signed == {**value, "signatures": {"domain": {"ed25519:1": signature}}}
    assert verify_json_signature(signed, "domain", "ed25519:1", KEY.verify_key)


@pytest.mark.parametrize(("event", "sha256", "signature"), EVENT_VECTORS)
def test_a_signed_event_is_as_published(event: dict[str, Any], sha256: str, signature: str) -> None:
    assert content_hash(event, V1) == sha256
    hashed = {**event, "hashes": {"sha256": sha256}}
    signed = sign_event(hashed, V1, "domain", KEY)
    assert signed == {**hashed, "signatures": {"domain": {"ed25519:1": signature}}}
    assert content_hash_matches(signed, V1)
    assert verify_event_signature(signed, V1, "domain", "ed25519:1", KEY.verify_key)
