"""`walden registration-token`: what lets people register when registration.mode is token; straight in the database."""

import json

import click
from psycopg import AsyncConnection

from bin.users import in_database
from eventlog.configuration import Settings


@click.group("registration-token")
def registration_token() -> None:
    """Make, list and end the tokens that let people register (registration.mode = "token")."""


@registration_token.command()
@click.argument("token", required=False)
@click.option("--uses", type=click.IntRange(1, 2**31 - 1), help="How often it may be used. Without: any number.")
@click.option("--days", type=click.FloatRange(0, 36500, min_open=True), help="When it ends. Without: never.")
def make(token: str | None, uses: int | None, days: float | None) -> None:
    """Make the token TOKEN, or one of a random text, and print it."""

    async def work(connection: AsyncConnection, _: Settings) -> None:
        from writer.registration_tokens import make_token

        seconds = None if days is None else days * 86400
        click.echo(await make_token(connection, token, uses_allowed=uses, seconds=seconds))

    in_database(work)


@registration_token.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_all(as_json: bool) -> None:
    """List all tokens."""

    async def work(connection: AsyncConnection, _: Settings) -> None:
        from writer.registration_tokens import list_tokens

        after = ""
        while page := await list_tokens(connection, after):
            for one in page:
                ends = None if one.expires_at is None else one.expires_at.isoformat()
                row = {**one._asdict(), "expires_at": ends}
                allowed = "" if one.uses_allowed is None else f" of {one.uses_allowed}"
                until = "" if ends is None else f"  until {ends}"
                over = "" if one.valid else "  over"
                text = f"{one.token}  used {one.completed}{allowed} times{until}{over}"
                click.echo(json.dumps(row) if as_json else text)
            after = page[-1].token

    in_database(work)


@registration_token.command()
@click.argument("token")
def end(token: str) -> None:
    """End the token TOKEN: nobody can register with it any more."""

    async def work(connection: AsyncConnection, _: Settings) -> None:
        from writer.registration_tokens import end_token

        await end_token(connection, token)
        click.echo(f"ended {token}")

    in_database(work)
