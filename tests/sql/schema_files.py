"""The files that say what the schema is, in the order they can be applied in, and the files of queries."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SQL = ROOT / "sql"
COMPONENTS = ("matrix", "eventlog", "writer", "roomserver", "readers", "bin")


def schema_files() -> list[Path]:
    """Schemas, tables (rooms before what refers to them), functions (entry ids before what is made of them), history."""
    tables = sorted((SQL / "tables" / "eventlog").glob("*.sql"))
    tables += sorted(
        (SQL / "tables" / "roomserver").glob("*.sql"), key=lambda file: (file.name != "rooms.sql", file.name)
    )
    others = (folder for folder in (SQL / "tables").iterdir() if folder.name not in ("eventlog", "roomserver"))
    tables += [
        file
        for folder in sorted(others, key=lambda folder: (folder.name != "writer", folder.name))
        for file in sorted(folder.glob("*.sql"))
    ]
    functions = sorted((SQL / "functions").glob("*.sql"), key=lambda file: (file.name != "entry_ids.sql", file.name))
    return [SQL / "schemas.sql", *tables, *functions, *sorted((SQL / "history").glob("*.sql"))]


def installed_files() -> list[Path]:
    """What is applied around the schema, each time."""
    return [SQL / "roles.sql", SQL / "publications.sql", SQL / "grants.sql"]


def migration_files() -> list[Path]:
    """The migrations."""
    return sorted((SQL / "migrations").glob("*.sql"))


def query_files() -> list[Path]:
    """Named queries, beside the components that run them."""
    return sorted(file for component in COMPONENTS for file in (ROOT / component).rglob("*.sql"))
