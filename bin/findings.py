"""What a check of `walden doctor` says."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One observation; everything that is not `ok` has a remedy."""

    level: Literal["ok", "warning", "error"]
    check: str
    text: str
    remedy: str = ""


def fine(check: str, text: str) -> Finding:
    """Something is as it should be."""
    return Finding("ok", check, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """It works, and should be otherwise."""
    return Finding("warning", check, text, remedy)


def error(check: str, text: str, remedy: str) -> Finding:
    """It does not work, or promises would be broken."""
    return Finding("error", check, text, remedy)
