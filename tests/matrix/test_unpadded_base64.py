"""Unpadded base64."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix import unpadded_base64


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"f", "Zg"),
        (b"fo", "Zm8"),
        (b"foo", "Zm9v"),
        (b"foob", "Zm9vYg"),
        (b"fooba", "Zm9vYmE"),
        (b"foobar", "Zm9vYmFy"),
    ],
)
def test_the_examples_of_the_specification(data: bytes, text: str) -> None:
    assert unpadded_base64.encode(data) == text
    assert unpadded_base64.decode(text) == data


@given(st.binary(max_size=100))
def test_decoding_undoes_encoding_with_padding_or_without(data: bytes) -> None:
    assert unpadded_base64.decode(unpadded_base64.encode(data)) == data
    assert unpadded_base64.decode(base64.b64encode(data).decode()) == data


@given(st.binary(max_size=100))
def test_the_url_safe_form_differs_in_two_characters(data: bytes) -> None:
    standard = unpadded_base64.encode(data)
    assert unpadded_base64.encode_url_safe(data) == standard.replace("+", "-").replace("/", "_")


@pytest.mark.parametrize("text", ["a", "Zm9v!", "Zm 9v", "Zm9v\n", "Zm-_", "é", "Zg==Zg"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        unpadded_base64.decode(text)
