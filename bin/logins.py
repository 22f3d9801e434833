"""The database logins of one installation, one per component, each a member of its component's group role.

Invariant: a login's name carries its database's OID, because roles are shared by a cluster's databases; passwords are
random, are kept in `logins.json` in the data directory (0600), and reach the server only as SCRAM verifiers.
"""

import dataclasses
import json
import os
import secrets
from pathlib import Path

from psycopg import AsyncConnection, sql

from bin.places import data_folder
from eventlog.configuration import Settings
from eventlog.pools import SESSION
from eventlog.queries import Queries

QUERIES = Queries("bin", "initialise.sql")
GROUPS: dict[str, str] = {
    "writer": "walden_writer",
    "roomserver": "walden_roomserver",
    "reader": "walden_reader",
    "maintenance": "walden_maintenance",
    "history": "walden_history",
}
"""The group role whose rights each login has. The login for replication is in none: it may stream and nothing else."""


@dataclasses.dataclass(frozen=True, slots=True)
class Login:
    """One login. `group` is empty for the one that replicates."""

    role: str
    name: str
    password: str
    group: str


LATER = "logins.later.json"
"""Passwords of logins that an administrator has been asked to make, until they are there: by role."""


def keep_for_later(settings: Settings) -> dict[str, str]:
    """Passwords by role for logins that an administrator is to make; the same ones when it is asked again."""
    data_dir = data_folder(settings.server.data_dir)
    known, later = _read(data_dir), _read_later(data_dir)
    passwords = {}
    for role in (*GROUPS, "replication"):
        if not getattr(settings.database, f"{role}_dsn"):
            passwords[role] = later.get(role) or known.get(role, {}).get("password") or secrets.token_urlsafe(24)
    _replace(data_dir / LATER, passwords)
    return passwords


def wanted_logins(settings: Settings, database_oid: int) -> list[Login]:
    """The logins this installation uses: of every role that has no DSN of its own. Passwords are known or new."""
    known, later = _read(settings.server.data_dir), _read_later(settings.server.data_dir)
    logins = []
    for role in (*GROUPS, "replication"):
        if getattr(settings.database, f"{role}_dsn"):
            continue
        name = f"walden_{database_oid}_{role}"
        before = known.get(role, {})
        password = before.get("password") if before.get("user") == name else later.get(role)
        logins.append(Login(role, name, password or secrets.token_urlsafe(24), GROUPS.get(role, "")))
    return logins


async def missing_logins(connection: AsyncConnection, logins: list[Login]) -> list[Login]:
    """Those that the cluster does not have, or not as they must be."""
    cursor = await connection.execute(QUERIES["roles"], {"names": [login.name for login in logins]})
    present = {name: (replicates, enters) for name, replicates, enters in await cursor.fetchall()}
    return [one for one in logins if present.get(one.name) != (not one.group, True)]


async def make_logins(
    connection: AsyncConnection, data_dir: Path, logins: list[Login], missing: list[Login], stale: list[Login]
) -> list[str]:
    """Make the missing ones and set the passwords of those whose password is not known, or stale; a sentence per login.

    `logins` and the others are told apart by name.
    """
    known, later = _read(data_dir), _read_later(data_dir)
    again = {one.name for one in stale} | {
        one.name
        for one in logins
        if known.get(one.role, {}).get("user") != one.name and later.get(one.role) != one.password
    }
    unknown = [one for one in logins if one not in missing and one.name in again]
    for one in (*missing, *unknown):
        verifier = connection.pgconn.encrypt_password(one.password.encode(), one.name.encode(), b"scram-sha-256")
        for statement in _statements(one, verifier.decode("ascii"), exists=one in unknown):
            await connection.execute(statement)
    _write(data_dir, logins)
    (data_dir / LATER).unlink(missing_ok=True)
    renewed = [f"renewed login {one.name}" for one in unknown if one.name in {other.name for other in stale}]
    return [f"made login {one.name}" for one in missing] + renewed


def statements(data_dir: Path, database: str, owner: str, missing: list[Login]) -> list[str]:
    """The SQL for an administrator. The passwords in it are kept, so that init knows them when it runs again."""
    _write(data_dir, missing)
    parts: list[sql.Composable] = [
        sql.SQL(
            "do $$ begin\n    if not exists (select from pg_roles where rolname = {}) then create role {} nologin; end if;\nend $$;"
        ).format(sql.Literal(group), sql.Identifier(group))
        for group in GROUPS.values()
    ]
    for one in missing:
        parts += [sql.SQL("{};").format(part) for part in _statements(one, one.password, exists=False)]
    groups = sql.SQL(", ").join(sql.Identifier(group) for group in GROUPS.values())
    parts += [
        sql.SQL("grant {} to {};").format(groups, sql.Identifier(owner)),
        sql.SQL("grant create on database {} to {};").format(sql.Identifier(database), sql.Identifier(owner)),
        sql.SQL("grant create on schema public to {};").format(sql.Identifier(owner)),
    ]
    return [part.as_string(None) for part in parts]


def _statements(one: Login, password: str, *, exists: bool) -> list[sql.Composed]:
    name, group = sql.Identifier(one.name), sql.Identifier(one.group)
    verb = sql.SQL("alter role" if exists else "create role")
    attributes = sql.SQL("login noinherit replication" if not one.group else "login")
    made = [sql.SQL("{} {} {} password {}").format(verb, name, attributes, sql.Literal(password))]
    if not one.group:
        return made
    made.append(sql.SQL("grant {} to {}").format(group, name))
    if one.role == "history":
        return made
    # Not only from the client: what goes through a pooler comes without options.
    change = sql.SQL("alter role {} set {} = {}")
    return made + [change.format(name, sql.Identifier(key), sql.Literal(value)) for key, value in SESSION.items()]


def _read(data_dir: Path) -> dict[str, dict[str, str]]:
    try:
        found: dict[str, dict[str, str]] = json.loads((data_dir / "logins.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _read_later(data_dir: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((data_dir / LATER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _write(data_dir: Path, logins: list[Login]) -> None:
    known = _read(data_dir) | {one.role: {"user": one.name, "password": one.password} for one in logins}
    _replace(data_dir / "logins.json", known)


def _replace(path: Path, content: object) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
