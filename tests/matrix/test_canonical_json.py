"""Canonical JSON: the appendix' examples, and agreement with the canonicaljson library."""

from __future__ import annotations

import json
import math
from typing import Any

import canonicaljson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import canonical_values, texts

from matrix.canonical import MAX_CANONICAL_INTEGER, check_canonical, encode_canonical
from matrix.errors import MatrixError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "{}"),
        ('{"one": 1, "two": "Two"}', '{"one":1,"two":"Two"}'),
        ('{"b": "2", "a": "1"}', '{"a":"1","b":"2"}'),
        (
            '{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",'
            '"three_pids": [{"medium": "email", "address": "john.doe@example.org"},'
            '{"medium": "msisdn", "address": "123456789"}]}}}',
            '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe",'
            '"three_pids":[{"address":"john.doe@example.org","medium":"email"},'
            '{"address":"123456789","medium":"msisdn"}]},"success":true}}',
        ),
        ('{"a": "日本語"}', '{"a":"日本語"}'),
        ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
        (r'{"a": "\u65E5"}', '{"a":"日"}'),
        ('{"a": null}', '{"a":null}'),
        ('{"a": -0, "b": 10000000000}', '{"a":0,"b":10000000000}'),
    ],
)
def test_the_examples_of_the_specification_come_out_as_printed(text: str, expected: str) -> None:
    assert encode_canonical(json.loads(text)) == expected.encode()


@given(canonical_values)
def test_the_encoding_equals_that_of_the_canonicaljson_library(value: Any) -> None:
    assert encode_canonical(value) == canonicaljson.encode_canonical_json(value)


@given(canonical_values)
def test_decoding_and_encoding_again_changes_nothing(value: Any) -> None:
    encoded = encode_canonical(value)
    assert encode_canonical(json.loads(encoded)) == encoded


@given(st.dictionaries(texts, st.integers(0, 9), min_size=2), st.randoms())
def test_the_order_in_which_keys_were_set_does_not_matter(value: dict[str, int], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert encode_canonical(dict(items)) == encode_canonical(value)


def test_keys_are_sorted_by_code_point_and_not_by_utf_16_unit() -> None:
    # U+FF61 sorts before U+1F600, whose UTF-16 form begins with 0xD83D.
    assert encode_canonical({"\U0001f600": 1, "｡": 2}) == '{"｡":2,"\U0001f600":1}'.encode()


@pytest.mark.parametrize("code_point", [*range(0x20), 0x22, 0x5C, 0x7F, 0x2028])
def test_every_control_character_is_escaped_as_the_grammar_says(code_point: int) -> None:
    assert encode_canonical(chr(code_point)) == canonicaljson.encode_canonical_json(chr(code_point))


@pytest.mark.parametrize("value", [MAX_CANONICAL_INTEGER, -MAX_CANONICAL_INTEGER])
def test_integers_up_to_2_to_the_53_minus_1_are_canonical(value: int) -> None:
    assert encode_canonical([value]) == b"[%d]" % value


@pytest.mark.parametrize(
    "value",
    [2**53, -(2**53), 2**70, 0.5, 1.0, -0.0, math.inf, math.nan, {"a": [{"b": 1.5}]}, (1, 2.5)],
)
def test_numbers_that_are_not_canonical_are_refused(value: Any) -> None:
    with pytest.raises(MatrixError) as refusal:
        encode_canonical(value)
    assert refusal.value.errcode == "M_BAD_JSON"


@pytest.mark.parametrize("value", [b"x", {1: 2}, {"a": object()}, {1, 2}, "\ud800", {"\udfff": 1}])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(MatrixError):
        encode_canonical(value)


def test_depth_beyond_what_is_written_is_refused_without_a_recursion_error() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    check_canonical(value)
    with pytest.raises(MatrixError):
        encode_canonical(value)
    with pytest.raises(MatrixError):
        encode_canonical([value, 0.5], strict=False)


@given(st.recursive(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), st.lists, max_leaves=5))
def test_old_rooms_get_floats_and_large_integers_as_the_library_writes_them(value: Any) -> None:
    assert encode_canonical(value, strict=False) == canonicaljson.encode_canonical_json(value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_even_old_rooms_have_no_infinite_numbers(value: float) -> None:
    with pytest.raises(MatrixError):
        encode_canonical(value, strict=False)


@pytest.mark.parametrize("edge", [9_007_199_254_740_991, -9_007_199_254_740_991])
def test_integers_reach_to_just_below_two_to_the_53rd(edge: int) -> None:
    check_canonical([edge])
    with pytest.raises(MatrixError):
        check_canonical([edge + (1 if edge > 0 else -1)])


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_what_is_no_json_type_is_refused(value: Any) -> None:
    with pytest.raises(MatrixError, match="not a JSON type"):
        check_canonical({"a": value})
