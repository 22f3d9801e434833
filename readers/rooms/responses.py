"""What response bodies are put together from, where events are bytes already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

JSON: Final = "application/json"


def quoted(text: str) -> bytes:
    """A string as JSON."""
    return orjson.dumps(text)


def join(values: Iterable[bytes]) -> bytes:
    """A JSON list of values that are JSON already."""
    return b"[%b]" % b",".join(values)
