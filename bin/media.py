"""`walden media`: what was uploaded, for administrators: look, hold back, delete.

Invariant: the server may run; what is held back or deleted is gone for the next request. Nothing is deleted before it was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from psycopg import AsyncConnection

from bin.erasing import asked_by, confirmed, dry, in_database, sure
from bin.outcome import USAGE, fail, settings
from eventlog.configuration import Settings

MOST_SHOWN = 100
_user = click.option("--user", "name", metavar="NAME", help="Everything that this user uploaded.")


@click.group()
def media() -> None:
    """Look at uploads, put them into quarantine, delete them.

    URI is an mxc:// URI of this server, or its last part.
    """


@media.command()
def usage() -> None:
    """Show how much there is, and who has uploaded most."""
    from readers.media.pruning import SQL

    async def work(connection: AsyncConnection, _: Settings) -> None:
        row = await (await connection.execute(SQL["totals"])).fetchone()
        assert row is not None
        uploads, held, awaited, inside, inside_bytes, files, file_bytes, idle, thumbnails, previews = row
        click.echo(f"{uploads:,} uploads, {held:,} in quarantine, {awaited:,} whose content is awaited")
        click.echo(f"{inside:,} contents in the database, {inside_bytes:,} bytes")
        click.echo(f"{files:,} contents in files, {file_bytes:,} bytes")
        click.echo(f"{idle:,} contents that nobody has any more, or not yet")
        click.echo(f"{thumbnails:,} thumbnails, {previews:,} previews")
        for user_id, count, size in await (await connection.execute(SQL["largest"], {"most": 20})).fetchall():
            click.echo(f"{user_id} {count:,} uploads, {size:,} bytes")

    in_database(work)


@media.command()
@click.argument("uris", nargs=-1, metavar="[URI]...")
@_user
def show(uris: tuple[str, ...], name: str | None) -> None:
    """Show what is known of uploads, the newest hundred of a user."""

    async def work(connection: AsyncConnection, found: Settings) -> list[tuple[Any, ...]]:
        return await _shown(connection, _ids(uris, found), _user_id(name, found))

    _wanted(uris, name)
    server = settings().server.name
    for row in in_database(work):
        click.echo(_sentence(row, server))


@media.command()
@click.argument("uris", nargs=-1, required=True, metavar="URI...")
def quarantine(uris: tuple[str, ...]) -> None:
    """Let nobody have uploads any more, nor the same content under other URIs or uploaded again. `release` undoes it."""
    click.echo(f"put {_hold(uris, held=True)} uploads into quarantine")


@media.command()
@click.argument("uris", nargs=-1, required=True, metavar="URI...")
def release(uris: tuple[str, ...]) -> None:
    """Let everybody have uploads again."""
    click.echo(f"took {_hold(uris, held=False)} uploads out of quarantine")


@media.command()
@click.argument("uris", nargs=-1, metavar="[URI]...")
@_user
@dry
@confirmed
def delete(uris: tuple[str, ...], name: str | None, dry_run: bool, yes: bool) -> None:
    """Delete uploads for good, with thumbnails; files in the directory at once, whatever media.keep_files_days says.

    A content that somebody else has uploaded as well stays for them.
    """
    from readers.media.pruning import remove_contents, remove_uploads, remove_uploads_of

    async def look(connection: AsyncConnection, found: Settings) -> list[tuple[Any, ...]]:
        return await _shown(connection, _ids(uris, found), _user_id(name, found))

    async def work(connection: AsyncConnection, found: Settings) -> tuple[int, int]:
        user_id = _user_id(name, found)
        gone = await remove_uploads(connection, _ids(uris, found))
        gone += await remove_uploads_of(connection, user_id) if user_id else 0
        return gone, await remove_contents(connection, found.media.directory, 0)

    _wanted(uris, name)
    rows, server = in_database(look), settings().server.name
    for row in rows:
        click.echo(_sentence(row, server))
    more = " or more" if len(rows) == MOST_SHOWN else ""
    if dry_run or not rows:
        click.echo(f"{len(rows)}{more} uploads")
        return
    sure(f"Delete {'all of the user' if name else len(rows)}?", yes)
    gone, contents = in_database(work)
    click.echo(f"deleted {gone} uploads and {contents} contents")


@media.command("prune")
def prune_now() -> None:
    """Take away now what maintenance takes away every ten minutes: what is old, unused or no longer referred to."""
    from readers.media.pruning import prune

    async def work(connection: AsyncConnection, found: Settings) -> None:
        done = await prune(connection, found.media)
        click.echo(f"took away {done.uploads} uploads, {done.previews} previews, {done.contents} contents")

    in_database(work)


@media.command()
@click.option("--remove", is_flag=True, help="Remove the files that the database does not know.")
@click.option("--days", default=30.0, show_default=True, help="Files that nobody has written to for so long.")
def files(remove: bool, days: float) -> None:
    """Hold the directory against the database: files that are missing, and files that nobody knows.

    The latter are left by a restore: uploads of the time that was lost. Keep them until you are sure that it stays lost, and
    never let two installations share a directory.
    """
    from readers.media.pruning import missing_files, orphans

    async def work(connection: AsyncConnection, found: Settings) -> int:
        directory = found.media.directory
        count, missing = await missing_files(connection, directory)
        for name in missing[:MOST_SHOWN]:
            click.echo(f"missing: {directory / name[:2] / name[2:]}")
        unknown = await orphans(connection, directory, days)
        for path in unknown[:MOST_SHOWN]:
            click.echo(f"unknown: {path}")
        for path in unknown if remove else ():
            path.unlink(missing_ok=True)
        word = "removed" if remove else "that the database does not know"
        click.echo(f"{count} files, of them {len(missing)} missing; {len(unknown)} {word}")
        return len(missing)

    if in_database(work):
        fail("files are missing: restore them from the backup of media.directory")


def _hold(uris: Sequence[str], *, held: bool) -> int:
    from readers.media.pruning import SQL

    async def work(connection: AsyncConnection, found: Settings) -> int:
        values = {"media_ids": _ids(uris, found), "held": held, "by": asked_by() if held else None}
        return (await connection.execute(SQL["quarantine"], values)).rowcount

    count: int = in_database(work)
    return count


def _wanted(uris: Sequence[str], name: str | None) -> None:
    if not uris and name is None:
        fail("name uploads, or a user with --user", USAGE)


def _user_id(name: str | None, found: Settings) -> str | None:
    from bin.users import user_id_of

    return None if name is None else user_id_of(name, found)


def _ids(uris: Sequence[str], found: Settings) -> list[str]:
    ours = f"mxc://{found.server.name}/"
    for uri in uris:
        if "/" in uri.removeprefix(ours):
            fail(f"{uri} is no upload of this server: they begin with {ours}", USAGE)
    return [uri.removeprefix(ours) for uri in uris]


async def _shown(connection: AsyncConnection, media_ids: list[str], user_id: str | None) -> list[tuple[Any, ...]]:
    from readers.media.pruning import SQL

    values = {"media_ids": media_ids, "user_id": user_id, "most": MOST_SHOWN}
    return await (await connection.execute(SQL["shown"], values)).fetchall()


def _sentence(row: tuple[Any, ...], server: str) -> str:
    from eventlog.safe_text import unsafe

    media_id, user_id, created, used, kind, file_name, size, digest, file, held, held_by, expires, others = row
    parts = [f"mxc://{server}/{media_id}", f"of {user_id or 'the server, for a preview'}", f"{created:%Y-%m-%d %H:%M}"]
    if size is None:
        parts.append(f"awaited until {expires:%Y-%m-%d %H:%M}" if expires else "without content")
    else:
        name = f" {unsafe(file_name)!r}" if file_name else ""
        parts += [f"{size:,} bytes of {kind}{name}", f"sha256 {digest}", f"in {'a file' if file else 'the database'}"]
        parts.append(f"last used {used:%Y-%m-%d}")
    if others:
        parts.append(f"the same content as {others} others")
    if held is not None:
        parts.append(f"in quarantine since {held:%Y-%m-%d %H:%M} by {held_by}")
    return ", ".join(parts)
