"""SQL as files: every query has a name, a sentence, and lower-case SQL with named parameters.

A query file holds blocks `-- name --`, one line of comment that says in a sentence what the query does, and the statement.
Nothing else in Python builds SQL text.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import LiteralString

_HEADER = re.compile(r"^-- ([a-z0-9_]+) --$", re.MULTILINE)


class Queries:
    """The queries of one file as attributes: `queries["name"]` is the statement."""

    def __init__(self, package: str, filename: str) -> None:
        text = files(package).joinpath(filename).read_text(encoding="utf-8")
        parts = _HEADER.split(text)
        self._statements = {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}

    def __getitem__(self, name: str) -> LiteralString:
        """The statement of that name; KeyError when the file has none."""
        return self._statements[name]

    def names(self) -> list[str]:
        """All names, for the lint."""
        return list(self._statements)


def read_sql(package: str, filename: str) -> LiteralString:
    """A whole SQL file of a package, as shipped."""
    return files(package).joinpath(filename).read_text(encoding="utf-8")
