"""The files under sql/ that say what the schema is, in the order in which an empty database takes them.

Invariant: they make what all migrations together make; a test compares the two.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def schema_files() -> list[Traversable]:
    """Schemas, tables (rooms before what refers to them), functions (entry ids before what is made of them), history."""
    root = files("sql")
    tables = root.joinpath("tables")
    first = ("eventlog", "roomserver", "writer")
    others = sorted(one.name for one in tables.iterdir() if one.is_dir() and one.name not in (*first, "__pycache__"))
    return [
        root.joinpath("schemas.sql"),
        *(file for name in (*first, *others) for file in _sorted(tables.joinpath(name), "rooms.sql")),
        *_sorted(root.joinpath("functions"), "entry_ids.sql"),
        *_sorted(root.joinpath("history")),
    ]


def _sorted(folder: Traversable, first: str = "") -> list[Traversable]:
    found = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(found, key=lambda file: (file.name != first, file.name))
