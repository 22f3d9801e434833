"""The files that say what the schema is, in order, and the files of queries."""

from __future__ import annotations

from pathlib import Path

from eventlog.schema_files import schema_files as shipped_files

ROOT = Path(__file__).parents[2]
SQL = ROOT / "sql"
COMPONENTS = ("matrix", "eventlog", "writer", "roomserver", "readers", "bin")


def schema_files() -> list[Path]:
    """What says what the schema is."""
    return [Path(str(file)) for file in shipped_files()]


def installed_files() -> list[Path]:
    """What is applied around the schema, each time."""
    return [SQL / "roles.sql", SQL / "publications.sql", SQL / "grants.sql"]


def migration_files() -> list[Path]:
    """The migrations."""
    return sorted((SQL / "migrations").glob("*.sql"))


def query_files() -> list[Path]:
    """Named queries, beside the components that run them."""
    return sorted(file for component in COMPONENTS for file in (ROOT / component).rglob("*.sql"))
