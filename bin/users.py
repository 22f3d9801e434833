"""`walden user`: local accounts, straight in the database; the server need not run.

Invariant: a password never appears on the command line of a process that others can list: it is asked for, read
from standard input, or made and printed.
"""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from psycopg import AsyncConnection

from bin.database_session import Work, run_as
from bin.outcome import fail
from eventlog.configuration import Settings


@click.group()
def user() -> None:
    """Make, list and change accounts of this server.

    NAME is a user name (alice) or a full user id of this server (@alice:example.org).
    """


def in_database(work: Work[Any]) -> Any:
    """Run `work` with a connection of the writers' login; refusals become sentences."""
    from matrix.errors import MatrixError

    try:
        return run_as("writer", work)
    except MatrixError as error:
        fail(error.error)


def user_id_of(name: str, found: Settings) -> str:
    """The full id of a user of this server; another server's is refused."""
    if not name.startswith("@"):
        return f"@{name}:{found.server.name}"
    if name.partition(":")[2] != found.server.name:
        fail(f"{name} is not a user of {found.server.name}", 2)
    return name


def _password(given: bool, made: bool) -> str:
    """From standard input, made up, or asked for twice."""
    if made:
        return secrets.token_urlsafe(12)
    if given:
        return sys.stdin.readline().rstrip("\r\n") or fail("there is no password on standard input", 2)
    if not sys.stdin.isatty():
        fail("there is no terminal to ask for a password: use --password-stdin or --make-password", 2)
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return asked


def _password_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")(command)
    return click.option("--make-password", is_flag=True, help="Make up a password and print it.")(command)


@user.command()
@click.argument("name")
@click.option("--admin", is_flag=True, help="Make the account a server administrator.")
@_password_options
def add(name: str, admin: bool, password_stdin: bool, make_password: bool) -> None:
    """Make the account NAME. Asks for a password."""

    async def work(connection: AsyncConnection, found: Settings) -> None:
        from matrix.errors import user_in_use
        from matrix.identifiers import check_local_user_id
        from writer.accounts import create_account
        from writer.server_notices import notices_id

        localpart = user_id_of(name, found)[1:].partition(":")[0]
        user_id = check_local_user_id(localpart, found.server.name)
        if user_id == notices_id(found):
            raise user_in_use()
        chosen = _password(password_stdin, make_password)
        await create_account(connection, user_id, chosen, admin=admin)
        click.echo(f"made {user_id}" + (f" with the password {chosen}" if make_password else ""))

    in_database(work)


@user.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_users(as_json: bool) -> None:
    """List all accounts."""

    async def work(connection: AsyncConnection, _: Settings) -> None:
        from writer.accounts import list_accounts

        after = ""
        while page := await list_accounts(connection, after=after, most=500):
            for one in page:
                row = {
                    "user_id": one.user_id,
                    "admin": one.admin,
                    "guest": one.guest,
                    "deactivated": one.deactivated_at is not None,
                    "locked": one.locked,
                    "suspended": one.suspended,
                    "devices": one.devices,
                    "created_at": one.created_at.isoformat(),
                }
                marks = [mark for mark in ("admin", "guest", "deactivated", "locked", "suspended") if row[mark]]
                text = f"{one.user_id}  {one.devices or 0} devices  {' '.join(marks)}".rstrip()
                click.echo(json.dumps(row) if as_json else text)
            after = page[-1].user_id

    in_database(work)


@user.command()
@click.argument("name")
@click.option("--keep-devices", is_flag=True, help="Do not log the account's devices out.")
@_password_options
def password(name: str, keep_devices: bool, password_stdin: bool, make_password: bool) -> None:
    """Set the password of NAME, and log its devices out."""

    async def work(connection: AsyncConnection, found: Settings) -> None:
        from writer.accounts import find_account, set_password

        user_id = user_id_of(name, found)
        account = await find_account(connection, user_id)
        if account is None or account.deactivated_at is not None:
            fail(f"there is no active account {user_id}")
        chosen = _password(password_stdin, make_password)
        await set_password(connection, user_id, chosen, logout_devices=not keep_devices)
        click.echo(f"changed the password of {user_id}" + (f" to {chosen}" if make_password else ""))

    in_database(work)


@user.command()
@click.argument("name")
@click.option("--erase", is_flag=True, help="Show what the user said only to those who were there.")
@click.option("--wait", type=click.FloatRange(0, 3600), default=10, show_default=True, help="Seconds to wait for that.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def deactivate(name: str, erase: bool, wait: float, yes: bool) -> None:
    """End the account NAME for good: no password, devices, third-party identifiers. The name stays taken.

    The account's rooms are left by the server; if it does not run now, as soon as it does.
    """

    async def work(connection: AsyncConnection, found: Settings) -> None:
        from writer.accounts import deactivate_account, has_departed

        user_id = user_id_of(name, found)
        if not yes:
            click.confirm(f"End the account {user_id}?", abort=True, err=True)
        await deactivate_account(connection, user_id, erase=erase)
        end = time.monotonic() + wait
        while not (departed := await has_departed(connection, user_id)) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        done = "has left its rooms" if departed else "leaves its rooms once the server runs"
        click.echo(f"deactivated {user_id}, which {done}")

    in_database(work)


def _mark(name: str, function: str, wanted: bool, said: str) -> None:
    """Sets one of an account's marks and says so."""

    async def work(connection: AsyncConnection, found: Settings) -> None:
        from writer import accounts

        user_id = user_id_of(name, found)
        await getattr(accounts, function)(connection, user_id, wanted)
        click.echo(f"{user_id} is {said}")

    in_database(work)


@user.command()
@click.argument("name")
def lock(name: str) -> None:
    """Lock the account NAME: it can do nothing but log out, and keeps its devices."""
    _mark(name, "set_locked", True, "locked")


@user.command()
@click.argument("name")
def unlock(name: str) -> None:
    """Unlock the account NAME."""
    _mark(name, "set_locked", False, "not locked")


@user.command()
@click.argument("name")
def suspend(name: str) -> None:
    """Suspend the account NAME: it can read and leave rooms, but not speak or join."""
    _mark(name, "set_suspended", True, "suspended")


@user.command()
@click.argument("name")
def unsuspend(name: str) -> None:
    """End the suspension of the account NAME."""
    _mark(name, "set_suspended", False, "not suspended")


@user.command()
@click.argument("name")
@click.option("--remove", is_flag=True, help="Take the right away again.")
def admin(name: str, remove: bool) -> None:
    """Make NAME a server administrator."""

    async def work(connection: AsyncConnection, found: Settings) -> None:
        from writer.accounts import set_admin

        user_id = user_id_of(name, found)
        await set_admin(connection, user_id, not remove)
        click.echo(f"{user_id} is {'no longer' if remove else 'now'} a server administrator")

    in_database(work)
