"""The grammars of identifiers: what is accepted from others, and what is made here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix import identifiers
from matrix.errors import MatrixError

SERVER_NAMES = [
    ("matrix.org", ("matrix.org", None)),
    ("matrix.org:8888", ("matrix.org", 8888)),
    ("1.2.3.4", ("1.2.3.4", None)),
    ("1.2.3.4:1234", ("1.2.3.4", 1234)),
    ("[1234:5678::abcd]", ("[1234:5678::abcd]", None)),
    ("[1234:5678::abcd]:5678", ("[1234:5678::abcd]", 5678)),
    ("localhost", ("localhost", None)),
    ("Example.ORG", ("Example.ORG", None)),
]


@pytest.mark.parametrize(("name", "parts"), SERVER_NAMES)
def test_the_server_names_of_the_specification_are_taken_apart(name: str, parts: tuple[str, int | None]) -> None:
    assert identifiers.parse_server_name(name) == parts
    assert identifiers.is_server_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "a b",
            "a_b",
            "x:",
            ":80",
            "x:123456",
            "x:99999",
            "x:80:80",
            "256.1.1.1",
            "[::1",
            "::1",
            "[1.2]",
            "[zz::]",
        ),
        *("é.org", "a" * 256, "x/y", "x\n", "x:٣", "user@x"),
    ],
)
def test_other_names_are_no_server_names(name: str) -> None:
    assert not identifiers.is_server_name(name)
    with pytest.raises(MatrixError) as refused:
        identifiers.parse_server_name(name)
    assert refused.value.errcode == "M_INVALID_PARAM"


def test_a_server_name_is_text() -> None:
    assert not identifiers.is_server_name(None)


@pytest.mark.parametrize("user_id", ["@a:x", "@A b\n\x01:x", "@:x", "@é:x.org:80", "@" + "a" * 252 + ":x"])
def test_historical_user_ids_are_accepted_in_events(user_id: str) -> None:
    assert identifiers.is_user_id(user_id)


@pytest.mark.parametrize(
    "user_id",
    ["", "@", "a:x", "@a", "@a:", "@a\0:x", "@a:x y", "@" + "a" * 253 + ":x", "@" + "é" * 127 + ":x", None, 1],
)
def test_other_values_are_no_user_ids(user_id: object) -> None:
    assert not identifiers.is_user_id(user_id)


def test_only_visible_ascii_is_compliant_outside_of_events() -> None:
    assert identifiers.is_compliant_user_id("@A*~!:x")
    for user_id in ("@:x", "@a b:x", "@é:x", "@a\x7f:x", "@a\n:x", 1):
        assert not identifiers.is_compliant_user_id(user_id)


def test_a_new_account_has_a_strict_user_id() -> None:
    assert identifiers.check_local_user_id("a-z0.9_=/+", "x") == "@a-z0.9_=/+:x"
    for localpart in ("", "A", "a b", "a:b", "é", "a" * 253, "a\n"):
        with pytest.raises(MatrixError) as refused:
            identifiers.check_local_user_id(localpart, "x")
        assert refused.value.errcode == "M_INVALID_USERNAME"


def test_room_ids_have_a_domain_or_are_a_hash() -> None:
    for room_id in ("!a:x", "!:x", "!a b:x:80", "!" + "aA0_-" * 8 + "abc"):
        assert identifiers.is_room_id(room_id)
    for other in ("!a", "a:x", "!", "!" + "a" * 42, "!" + "a" * 44, "!" + "a" * 42 + "+", "!a\0:x", None):
        assert not identifiers.is_room_id(other)


def test_event_ids_have_a_sigil_and_at_most_255_bytes() -> None:
    for event_id in ("$a", "$a:x", "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", "$" + "a" * 254):
        assert identifiers.is_event_id(event_id)
    for other in ("$", "a", "", "$a\0", "$" + "a" * 255, "$" + "é" * 128, 1, None):
        assert not identifiers.is_event_id(other)


def test_room_aliases_have_a_domain() -> None:
    assert identifiers.is_room_alias("#a b:x")
    for other in ("#a", "a:x", "#a\0:x", "#" + "a" * 253 + ":x", None):
        assert not identifiers.is_room_alias(other)


def test_the_server_name_is_all_after_the_first_colon() -> None:
    assert identifiers.server_name_of("@a:x:80") == "x:80"
    assert identifiers.localpart_of("@a:x:80") == "a"
    assert identifiers.server_name_of("!hash") == ""


@given(st.text(max_size=300))
def test_what_fits_is_measured_in_bytes(text: str) -> None:
    assert identifiers.fits(text) == (len(text.encode("utf-8", "surrogatepass")) <= 255)


@pytest.mark.parametrize("surrogate", ["\ud800", "\ud800" * 255])
def test_a_lone_surrogate_does_not_break_the_measure(surrogate: str) -> None:
    assert isinstance(identifiers.fits(surrogate), bool)


def test_opaque_identifiers_are_of_unreserved_characters() -> None:
    assert identifiers.is_opaque_identifier("a-Z.0_~")
    for other in ("", "a b", "a/b", "a" * 256, "é", None):
        assert not identifiers.is_opaque_identifier(other)


def test_made_identifiers_are_valid_and_do_not_repeat() -> None:
    room_ids = {identifiers.new_room_id("x.org") for _ in range(100)}
    assert len(room_ids) == 100
    assert all(map(identifiers.is_room_id, room_ids))
    assert len(identifiers.new_opaque_id(30)) == 30
    device_id = identifiers.new_device_id()
    assert len(device_id) == 10
    assert device_id.isupper()
