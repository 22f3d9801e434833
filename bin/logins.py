"""The database logins of one installation, one per component, each a member of its component's group role.

Invariant: a login's name carries its database's OID, because roles are shared by a cluster's databases; passwords are
random, are kept in `logins.json` in the data directory (0600), and reach the server only as SCRAM verifiers.
"""

import base64
import dataclasses
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from psycopg import AsyncConnection, sql

from bin.places import data_folder
from eventlog.configuration import ConfigurationError, Settings
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


ITERATIONS = 4096
"""Of SCRAM, as PostgreSQL's own default."""
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


def unknown_logins(data_dir: Path, logins: list[Login]) -> list[Login]:
    """Those whose password this data directory does not know: if the cluster has them, it is another one's."""
    known, later = _read(data_dir), _read_later(data_dir)
    return [
        one for one in logins if known.get(one.role, {}).get("user") != one.name and later.get(one.role) != one.password
    ]


async def used_elsewhere(connection: AsyncConnection, logins: list[Login]) -> list[str]:
    """The names of those that sessions of this database have: with another password they would not come back."""
    cursor = await connection.execute(QUERIES["users"], {"names": [login.name for login in logins]})
    return [row[0] for row in await cursor.fetchall()]


async def make_logins(
    connection: AsyncConnection,
    data_dir: Path,
    logins: list[Login],
    missing: list[Login],
    stale: list[Login],
    guests: Iterable[str] = (),
) -> list[str]:
    """Make the missing ones and set the passwords of those whose password is not known, or stale; a sentence per login.

    Whoever makes logins closes the database to others: the groups are the whole cluster's, and another installation's logins are
    members of them too. `guests` are let in as well. `logins` and the others are told apart by name.
    """
    again = {one.name for one in (*stale, *unknown_logins(data_dir, logins))}
    unknown = [one for one in logins if one not in missing and one.name in again]
    for one in (*missing, *unknown):
        verifier = connection.pgconn.encrypt_password(one.password.encode(), one.name.encode(), b"scram-sha-256")
        for statement in _statements(one, verifier.decode("ascii"), exists=one in unknown):
            await connection.execute(statement)
    closed = await _close(connection, logins, guests) if missing else []
    _write(data_dir, logins)
    (data_dir / LATER).unlink(missing_ok=True)
    renewed = [f"renewed login {one.name}" for one in unknown if one.name in {other.name for other in stale}]
    return [f"made login {one.name}" for one in missing] + renewed + closed


async def _close(connection: AsyncConnection, logins: list[Login], guests: Iterable[str]) -> list[str]:
    """Lets the logins in and, if that was open to everybody, nobody else any more."""
    names = [*(login.name for login in logins), *guests]
    cursor = await connection.execute(QUERIES["doors"], {"names": names})
    row = await cursor.fetchone()
    assert row is not None
    database, ours, is_open, present = row
    if not ours:
        return []
    for statement in _doors(database, present):
        await connection.execute(statement)
    if not is_open:
        return []
    return [
        f"closed database {database} to all but its owner and the logins; `grant connect on database` lets others in"
    ]


async def would_close(connection: AsyncConnection, logins: list[Login]) -> bool:
    """Whether making what is missing of the logins would close the database, which is open to everybody."""
    cursor = await connection.execute(QUERIES["doors"], {"names": []})
    row = await cursor.fetchone()
    return row is not None and row[1] and row[2] and bool(await missing_logins(connection, logins))


def _doors(database: str, names: Sequence[str]) -> list[sql.Composed]:
    """Who may connect: these, and the owner. PostgreSQL lets everybody into a new database."""
    name, roles = sql.Identifier(database), sql.SQL(", ").join(map(sql.Identifier, names))
    return [
        sql.SQL("grant connect on database {} to {}").format(name, roles),
        sql.SQL("revoke connect, temporary on database {} from public").format(name),
    ]


def statements(
    data_dir: Path, database: str, owner: str, missing: list[Login], guests: Iterable[str] = ()
) -> list[str]:
    """The SQL for an administrator. The passwords whose verifiers it holds are kept, so that init knows them when it runs again.

    Raises ConfigurationError.
    """
    _write(data_dir, missing)
    parts: list[sql.Composable] = [
        sql.SQL(
            "do $$ begin\n    if not exists (select from pg_roles where rolname = {}) then create role {} nologin; end if;\nend $$;"
        ).format(sql.Literal(group), sql.Identifier(group))
        for group in GROUPS.values()
    ]
    for one in missing:
        parts += [sql.SQL("{};").format(part) for part in _statements(one, verifier(one.password), exists=False)]
    groups = sql.SQL(", ").join(sql.Identifier(group) for group in GROUPS.values())
    parts += [
        sql.SQL("grant {} to {};").format(groups, sql.Identifier(owner)),
        sql.SQL("grant create on database {} to {};").format(sql.Identifier(database), sql.Identifier(owner)),
        sql.SQL("grant create on schema public to {};").format(sql.Identifier(owner)),
    ]
    if missing:
        names = dict.fromkeys([owner, *(one.name for one in missing), *guests])
        parts += [sql.SQL("{};").format(part) for part in _doors(database, list(names))]
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


def verifier(password: str) -> str:
    """What PostgreSQL stores of a password under scram-sha-256 (RFC 5803). Raises ConfigurationError beyond ASCII.

    Made here, because the server that could make it is not at hand. Beyond ASCII a password would have to be normalised first.
    """
    if not password.isascii():
        raise ConfigurationError("a password in database.dsn must be ASCII for its verifier to be made")
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, hashlib.sha256(client).digest(), server)]
    return f"SCRAM-SHA-256${ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
