"""Dot-separated property paths, such as `content.m\\.relates_to.rel_type`.

Source: appendices, "Dot-separated property paths".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["ABSENT", "look_up", "parse_path"]

ABSENT: Final = object()
"""What `look_up` returns where there is nothing; null is something."""

_PART = re.compile(r"\\[.\\]|\.|[^.\\]+|\\", re.DOTALL)


def parse_path(path: str) -> tuple[str, ...]:
    """The property names of a path, outermost first. Every string is a path; an empty one names the empty property."""
    names = [""]
    for part in _PART.findall(path):
        if part == ".":
            names.append("")
        elif part in ("\\.", "\\\\"):
            names[-1] += part[1]
        else:
            # "Other escape sequences are left as-is."
            names[-1] += part
    return tuple(names)


def look_up(value: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The property at a path, or ABSENT."""
    found: Any = value
    for name in path:
        if not isinstance(found, dict):
            return ABSENT
        found = found.get(name, ABSENT)
    return found
