"""Strict parsing of JSON that somebody has sent.

What passes has one meaning: valid UTF-8, no lone surrogates, no key twice in an object, finite numbers, bounded depth.
Never a RecursionError, whatever the bytes. The common case is one parse and one serialisation in C; the standard
library's parser is asked only when that leaves a doubt. Floats pass here, because some requests may hold them, and
integers of more than 64 bits become floats; events may hold neither, and `matrix.canonical` refuses them there.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

from matrix.errors import MatrixError, bad_json, not_json

__all__ = ["MAX_DEPTH", "parse_json", "parse_object"]

MAX_DEPTH = 200
"""Objects and lists within each other. orjson writes 254; what encloses an event in a response needs the difference."""


def parse_json(body: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text; M_NOT_JSON if it is none, M_BAD_JSON if it is one that is refused.

    `max_depth` may be at most 254.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _refusal(body, error) from error
    try:
        written = orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise bad_json("Nested too deeply.") from error
    # A member has one colon outside of strings, and orjson writes those within strings as they are. So a member that
    # was dropped as a duplicate shows as a missing colon, unless an escaped one has taken its place.
    if body.count(b":") != written.count(b":") or b"\\u003" in body:
        value = _parse_pair_by_pair(body)
    if body.count(b"{") + body.count(b"[") > max_depth and _is_deeper_than(value, max_depth):
        raise bad_json("Nested too deeply.")
    return value


def parse_object(body: bytes, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Like `parse_json`, and M_BAD_JSON for anything but an object."""
    value = parse_json(body, max_depth=max_depth)
    if not isinstance(value, dict):
        raise bad_json("Expected a JSON object.")
    return value


def _is_deeper_than(value: Any, max_depth: int) -> bool:
    containers = [value] if isinstance(value, dict | list) else []
    for _ in range(max_depth):
        inner: list[Any] = []
        for container in containers:
            inner += container.values() if isinstance(container, dict) else container
        containers = [item for item in inner if isinstance(item, dict | list)]
    return bool(containers)


def _parse_pair_by_pair(body: bytes) -> Any:
    """Parse what orjson has found to be JSON, to the same value, refusing duplicate keys."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object_without_duplicates, parse_int=_integer)
    except RecursionError as error:
        raise bad_json("Nested too deeply.") from error


def _integer(text: str) -> int | float:
    # Beyond 64 bits orjson reads a float, so that is what it is here.
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(text)


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise bad_json("An object has the same key twice.")
    return value


def _refusal(body: bytes, error: orjson.JSONDecodeError) -> MatrixError:
    """M_BAD_JSON if a tolerant parser takes the text (lone surrogates, infinite numbers, depth), else M_NOT_JSON."""
    try:
        json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        return bad_json("Nested too deeply.")
    except UnicodeDecodeError:
        return not_json("Not UTF-8.")
    except json.JSONDecodeError:
        return not_json(f"Not JSON: {error.msg}.")
    except ValueError:
        return bad_json("Refused: a number is too long.")
    return bad_json(f"Refused: {error.msg}.")


def _no_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is no JSON", name, 0)
