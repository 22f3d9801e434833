"""`walden doctor`: settings, files, database and grants looked at, each finding with its remedy.

Invariant: it changes nothing. A check that cannot be made is a finding too, never silence.
"""

import asyncio
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg

from bin.account_checks import check_accounts
from bin.certificates import certificate_findings
from bin.findings import Finding, error, fine, warning
from bin.logins import LATER
from bin.media_checks import check_media
from bin.pooling import check_pooler
from bin.preflight import check_database, check_logins
from bin.standbys import check_reading_standby
from eventlog.configuration import ConfigurationError, Settings
from eventlog.key_file import read_key

FREE_BYTES = 2 << 30


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order of the checks."""
    found = [*_settings(settings), *check_accounts(settings), *_files(settings), *_room_on_disk(settings)]
    try:
        found += asyncio.run(_database(settings))
    except ConfigurationError as problem:
        found.append(error("database", str(problem), "run `walden init`"))
    return found


async def _database(settings: Settings) -> list[Finding]:
    try:
        async with await psycopg.AsyncConnection.connect(
            settings.dsn(direct=True), autocommit=True, connect_timeout=settings.database.connect_timeout
        ) as connection:
            found = await check_database(settings, connection)
            found += [
                *await check_logins(settings),
                *await check_pooler(settings),
                *await check_media(settings, connection),
            ]
            return [*found, *await check_reading_standby(settings)]
    except psycopg.OperationalError as problem:
        remedy = (
            "start it with `walden up`" if settings.embedded else "correct database.dsn, or start the server it names"
        )
        return [error("database", f"it cannot be reached: {str(problem).strip()}", remedy)]


def _settings(settings: Settings) -> Iterator[Finding]:
    yield from (warning("settings", text, "correct the name, or remove the variable") for text in settings.warnings)
    early = {
        "appservices.files": bool(settings.appservices.files),
        "federation.extra_ca_file": settings.federation.extra_ca_file is not None,
    }
    for name in (name for name, given in early.items() if given):
        yield warning("settings", f"{name} does nothing in this version", "leave it, or wait with what needs it")
    if not settings.path.exists():
        yield warning("settings", f"there is no {settings.path}", "run `walden init`, or set WALDEN_CONFIG")
    else:
        yield fine("settings", f"{settings.path} is understood")
    if settings.server.name == "localhost":
        yield warning("settings", "the server's name is localhost, and no other server can reach that", _NAME)
    if settings.registration.mode == "open":
        yield warning(
            "settings", "anybody may register (registration.mode is open)", "use `token` unless that is what you want"
        )
    if not settings.rate_limits.enabled:
        yield warning("settings", "rate limits are off", "set rate_limits.enabled = true unless this is a test")


_NAME = "fine for a trial; for a real server make a new installation with WALDEN_SERVER_NAME, for names cannot change"


def _files(settings: Settings) -> Iterator[Finding]:
    try:
        key = read_key(settings.server.signing_key)
        yield fine("signing key", f"{settings.server.signing_key} holds {key.key_id}")
    except ConfigurationError as problem:
        yield error(
            "signing key", str(problem), "restore the file from the backup; for a new server, run `walden init`"
        )
    data_dir = settings.server.data_dir
    secrets = (
        settings.server.signing_key,
        settings.path,
        data_dir / "logins.json",
        data_dir / LATER,
        data_dir / "embedded.dsn",
    )
    for path in secrets:
        if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = oct(stat.S_IMODE(path.stat().st_mode))[2:]
            yield error("files", f"{path} can be read by others (mode {mode})", f"chmod 600 {path}")
    wanted = {
        "federation.extra_ca_file": settings.federation.extra_ca_file,
    } | {f"appservices.files ({path.name})": path for path in settings.appservices.files}
    for name, file in wanted.items():
        if file is not None and not os.access(file, os.R_OK):
            yield error("files", f"{name}: {file} cannot be read", "correct the path, or the file's permissions")
    yield from certificate_findings(settings)


def _room_on_disk(settings: Settings) -> Iterator[Finding]:
    for name, folder in (("data directory", settings.server.data_dir), ("media", settings.media.directory)):
        there = _nearest(folder)
        if not os.access(there, os.W_OK):
            yield error("disk", f"{name}: {there} cannot be written to", "change its owner or permissions")
            continue
        free = shutil.disk_usage(there).free
        if free < FREE_BYTES:
            text = f"{name}: {free >> 20} MiB are free below {there}"
            yield warning("disk", text, "make room: PostgreSQL stops when its disk is full")


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def as_text(findings: list[Finding]) -> str:
    """For a person: errors first."""
    signs = {"error": "ERROR  ", "warning": "warning", "ok": "ok     "}
    order = list(signs)
    lines = []
    for one in sorted(findings, key=lambda one: order.index(one.level)):
        lines.append(f"{signs[one.level]}  {one.check}: {one.text}")
        if one.remedy:
            lines.append(f"         -> {one.remedy}")
    return "\n".join([*lines, ""])
