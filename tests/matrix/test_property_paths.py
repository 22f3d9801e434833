"""Dot-separated property paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.property_paths import ABSENT, look_up, parse_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("content.body", ("content", "body")),
        (r"content.m\.relates_to", ("content", "m.relates_to")),
        (r"content.m\\foo", ("content", r"m\foo")),
        (r"content.\x", ("content", r"\x")),
        ("", ("",)),
        ("a..b", ("a", "", "b")),
        ("a\\", ("a\\",)),
    ],
)
def test_dots_separate_and_backslashes_escape_dots_and_backslashes_alone(path: str, names: tuple[str, ...]) -> None:
    assert parse_path(path) == names


@given(st.lists(st.text(), min_size=1))
def test_names_that_are_escaped_come_back(names: list[str]) -> None:
    path = ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)
    assert parse_path(path) == tuple(names)


def test_what_is_absent_is_not_null() -> None:
    event = {"content": {"m.federate": None, "body": "a"}}
    assert look_up(event, ("content", "m.federate")) is None
    assert look_up(event, ("content", "other")) is ABSENT
    assert look_up(event, ("content", "body", "deeper")) is ABSENT
