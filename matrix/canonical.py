"""Canonical JSON: one value, one sequence of bytes.

Source: appendices, "Canonical JSON": shortest UTF-8 form, keys sorted by code point, integers within ±(2^53 - 1), no
floats. orjson writes exactly this for the values that the check lets through; for the events of old room versions,
which may hold anything that JSON can, the canonicaljson library is the reference and the slow path.
"""

from __future__ import annotations

from typing import Any

import canonicaljson
import orjson

from matrix.errors import MatrixError, bad_json

__all__ = ["MAX_CANONICAL_INTEGER", "check_canonical", "encode_canonical"]

MAX_CANONICAL_INTEGER = 2**53 - 1

_SORTED = orjson.OPT_SORT_KEYS


def check_canonical(value: Any) -> None:
    """Refuse what canonical JSON cannot hold: floats, integers beyond ±(2^53 - 1), and what is not JSON at all.

    Raises M_BAD_JSON. Works through a list of its own, so that depth costs memory and never the stack.
    """
    pending = [value]
    pop = pending.pop
    while pending:
        item = pop()
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is int:
            if not -MAX_CANONICAL_INTEGER <= item <= MAX_CANONICAL_INTEGER:
                raise bad_json("Integers must lie within ±(2^53 - 1).")
        elif kind is dict:
            pending += item.values()
        elif kind is list or kind is tuple:
            pending += item
        elif kind is float:
            raise bad_json("Numbers must be integers.")
        else:
            raise bad_json(f"{kind.__name__} is not a JSON type.")


def encode_canonical(value: Any, *, strict: bool = True) -> bytes:
    """The canonical form of a JSON value.

    `strict` refuses what room versions 6 and newer forbid (M_BAD_JSON). Without it floats and large integers are
    written as the canonicaljson library writes them, which is what the servers of old rooms have signed.
    """
    try:
        check_canonical(value)
    except MatrixError:
        if strict:
            raise
        return _encode_lenient(value)
    try:
        return orjson.dumps(value, option=_SORTED)
    except orjson.JSONEncodeError as error:
        raise bad_json(f"Not JSON: {error}.") from error


def _encode_lenient(value: Any) -> bytes:
    try:
        return canonicaljson.encode_canonical_json(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise bad_json(f"Not JSON: {error}.") from error
