"""Glob-style matching, against a definition that tries everything."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.globs import Glob, Wildcard, WordGlob

patterns = st.text(alphabet="ab_-*?", max_size=7)
texts = st.text(alphabet="abAB_- ", max_size=12)


def stands_for(pattern: str, text: str, *, question_mark: bool = True) -> bool:
    """The definition, by recursion over both."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(
            stands_for(pattern[1:], text[skipped:], question_mark=question_mark) for skipped in range(len(text) + 1)
        )
    first = bool(text) and (text[0] == pattern[0] or (question_mark and pattern[0] == "?"))
    return first and stands_for(pattern[1:], text[1:], question_mark=question_mark)


def is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


@given(patterns, texts)
def test_a_glob_matches_exactly_what_its_definition_says_whatever_the_case(pattern: str, text: str) -> None:
    assert Glob(pattern).matches(text) == stands_for(pattern, text.lower())


@given(st.text(alphabet="ab.*?", max_size=7), st.text(alphabet="ab.?", max_size=10))
def test_in_a_wildcard_only_the_star_is_special_and_case_counts(pattern: str, text: str) -> None:
    assert Wildcard(pattern).matches(text) == stands_for(pattern, text, question_mark=False)
    assert not Wildcard("m.room.*").matches("M.room.name")


@given(patterns, texts)
def test_a_word_glob_matches_some_part_between_word_boundaries(pattern: str, text: str) -> None:
    starts = [at for at in range(len(text) + 1) if at == 0 or not is_word(text[at - 1])]
    ends = [at for at in range(len(text) + 1) if at == len(text) or not is_word(text[at])]
    expected = any(stands_for(pattern, text[start:end].lower()) for start in starts for end in ends if start <= end)
    assert WordGlob(pattern).matches(text) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("An example event.", True),
        ("exple", True),
        ("An exciting triple-whammy", True),
        ("An EXAMPLE", True),
        ("counterexample", False),
        ("examples", False),
    ],
)
def test_the_examples_of_the_specification_match_in_the_body(body: str, expected: bool) -> None:
    assert WordGlob("ex*ple").matches(body) is expected


@pytest.mark.parametrize("pattern", ["a*" * 100 + "b", "*a?" * 100 + "b", "a" * 50 + "*b", "*" * 200])
def test_no_pattern_takes_long_on_the_largest_text(pattern: str) -> None:
    text = "a " * 32_000
    begun = time.perf_counter()
    for glob in (Glob(pattern), WordGlob(pattern), Wildcard(pattern)):
        glob.matches(text)
    assert time.perf_counter() - begun < 2
