"""Parsing what others send: strict, bounded, and the same value as a plain parser's where it passes."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import canonical_values, texts

from matrix.errors import MatrixError
from matrix.json_input import MAX_DEPTH, parse_json, parse_object


def refusal(body: bytes, **options: Any) -> str:
    with pytest.raises(MatrixError) as refused:
        parse_json(body, **options)
    assert refused.value.status == 400
    return refused.value.errcode


@given(canonical_values, st.booleans(), st.sampled_from([None, 2]))
def test_valid_json_has_the_value_that_any_parser_gives_it(value: Any, ascii_only: bool, indent: int | None) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == value


@given(st.binary(max_size=60) | texts.map(lambda text: text.encode()))
def test_any_bytes_are_parsed_or_refused_as_the_standard_library_would(body: bytes) -> None:
    try:
        value = parse_json(body)
    except MatrixError as error:
        assert error.errcode in ("M_NOT_JSON", "M_BAD_JSON")
    else:
        assert value == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1,}',
        b"[01]",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        b'"\x00"',
        b"'a'",
        b"{} {}",
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_what_is_no_json_text_is_not_json(body: bytes) -> None:
    assert refusal(body) == "M_NOT_JSON"


@pytest.mark.parametrize("body", [rb'"\ud800"', rb'"\udfff"', rb'{"\ud83d":1}', rb'"\ud83dx"', b"1e400", b"[-1e999]"])
def test_lone_surrogates_and_infinite_numbers_are_bad_json(body: bytes) -> None:
    assert refusal(body) == "M_BAD_JSON"


def test_a_number_of_five_thousand_digits_is_bad_json() -> None:
    assert refusal(b"9" * 5000) == "M_BAD_JSON"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"b":{"c":1,"c":2}}',
        rb'{"a":1,"\u0061":2}',
        # An escaped colon in what remains makes up for the colon of the member that is lost.
        rb'{"a":1,"a":"\u003a"}',
        rb'{"a":1,"a":"\u003A"}',
        b'[{"x":":::","x":""}]',
    ],
)
def test_an_object_with_the_same_key_twice_is_bad_json(body: bytes) -> None:
    assert refusal(body) == "M_BAD_JSON"


def _text_with_a_duplicate(value: dict[str, Any], key: str, at: int) -> bytes:
    members = [json.dumps(name) + ":" + json.dumps(item) for name, item in value.items()]
    members.insert(at % (len(members) + 1), json.dumps(key) + ":" + json.dumps(":" * (at % 3)))
    return ("{" + ",".join(members) + "}").encode()


@given(st.dictionaries(texts, canonical_values, min_size=1), st.data(), st.integers(0, 20))
def test_no_duplicate_goes_unnoticed_wherever_it_stands(value: dict[str, Any], data: st.DataObject, at: int) -> None:
    body = _text_with_a_duplicate(value, data.draw(st.sampled_from(sorted(value))), at)
    assert refusal(body) == "M_BAD_JSON"


@pytest.mark.parametrize("body", [rb'{"a":"\u003a"}', rb'{"a:b":"\\u003a:"}', rb'{"a":1, "\u003a":{":":2}}'])
def test_colons_within_strings_are_not_taken_for_duplicates(body: bytes) -> None:
    assert parse_json(body) == json.loads(body)


@pytest.mark.parametrize("opening, closing", [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_bounded_exactly(opening: bytes, closing: bytes) -> None:
    def nested(depth: int) -> bytes:
        return opening * depth + b"1" * (opening != b"[") + closing * depth

    parse_json(nested(MAX_DEPTH))
    assert refusal(nested(MAX_DEPTH + 1)) == "M_BAD_JSON"
    parse_json(nested(3), max_depth=3)
    assert refusal(nested(4), max_depth=3) == "M_BAD_JSON"
    parse_json(b"[" + nested(2) + b"," + nested(2) + b"]", max_depth=3)


@pytest.mark.parametrize("depth", [254, 255, 1000, 1025, 5000, 1_000_000])
def test_no_depth_makes_a_recursion_error(depth: int) -> None:
    assert refusal(b"[" * depth + b"]" * depth) == "M_BAD_JSON"
    assert refusal(b'{"a":' * depth + b"1" + b"}" * depth) == "M_BAD_JSON"
    assert refusal(b"[" * depth) in ("M_BAD_JSON", "M_NOT_JSON")


def test_what_passes_can_be_written_again_within_a_response() -> None:
    value = parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for _ in range(40):
        value = {"a": value}
    orjson.dumps(value)


def test_the_null_character_is_a_character() -> None:
    assert parse_json(rb'"\u0000"') == "\0"


def test_an_integer_of_more_than_64_bits_is_a_float_on_either_path() -> None:
    assert parse_json(b"[18446744073709551616]") == [18446744073709551616.0]
    parsed = parse_json(rb'["\u003a",18446744073709551616,18446744073709551615,-9223372036854775809]')
    assert [type(item) for item in parsed] == [str, float, int, float]


def test_only_an_object_is_an_object() -> None:
    assert parse_object(b'{"a":1}') == {"a": 1}
    for body in (b"[]", b"null", b'"{}"', b"1"):
        with pytest.raises(MatrixError) as refused:
            parse_object(body)
        assert refused.value.errcode == "M_BAD_JSON"
