"""What docs/tables.md says of each table, read as numbers.

Invariant: a bound is a sum of products of numbers and names that the page explains.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "tables.md"
NAMES = ("requests", "entries", "messages", "states", "user_entries", "rooms", "users", "devices", "shards")


def bounds() -> dict[str, str]:
    """By table, the formula of the page."""
    rows = re.findall(
        r"^\| `([a-z_.]+)` \| [^|]+ \| `([^`]+)` \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return dict(rows)


def value(formula: str, numbers: dict[str, int]) -> int:
    """A formula of sums and products."""
    operations: dict[type, Callable[[int, int], int]] = {ast.Add: operator.add, ast.Mult: operator.mul}

    def of(node: ast.AST) -> int:
        match node:
            case ast.Expression(body):
                return of(body)
            case ast.Constant(int(number)):
                return number
            case ast.Name(name):
                return numbers[name]
            case ast.BinOp(left, kind, right):
                return operations[type(kind)](of(left), of(right))
        raise ValueError(f"{formula} is no sum of products")

    return of(ast.parse(formula, mode="eval"))
