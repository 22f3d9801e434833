"""The commands that work on accounts straight in the database, while a server runs on it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from api_server import Api, Client, eventually, part, serving, settings_for
from commands import Run


async def _is_refused(user: Client, method: str, path: str, refusal: tuple[int, str | None]) -> bool:
    return (await user.call(method, path, {} if method == "POST" else None)).refusal == refusal


async def test_accounts_are_locked_and_suspended_at_once_by_command(api: Api, run: Run) -> None:
    alice = await api.register()
    name = alice.user_id[1:].partition(":")[0]
    for command, path, refusal in (
        ("lock", "account/whoami", (401, "M_USER_LOCKED")),
        ("suspend", "createRoom", (403, "M_USER_SUSPENDED")),
    ):
        done = await run("user", command, name)
        assert done.exit_code == 0 and alice.user_id in done.output, done.output
        method = "POST" if path == "createRoom" else "GET"
        await eventually(partial(_is_refused, alice, method, path, refusal))
        listed = [json.loads(line) for line in (await run("user", "list", "--json")).output.splitlines()]
        (row,) = [one for one in listed if one["user_id"] == alice.user_id]
        assert (row["locked"], row["suspended"]) == (command == "lock", command == "suspend")
        assert (await run("user", f"un{command}", alice.user_id)).exit_code == 0
        await eventually(partial(_is_refused, alice, "GET", "account/whoami", (200, None)))
    missing = await run("user", "lock", "nobody.at.all")
    assert missing.exit_code == 1 and "No such active account" in missing.output


async def test_the_command_deactivates_like_the_endpoint(api: Api, run: Run) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await bob.create_room(preset="public_chat")
    (await alice.post(f"join/{part(room_id)}", {})).ok()
    done = await run("user", "deactivate", alice.user_id, "--yes", "--erase", "--wait", "30")
    assert done.exit_code == 0 and "has left its rooms" in done.output, done.output
    assert await bob.membership(room_id, alice.user_id) == "leave"
    assert (await alice.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")


async def test_registration_tokens_are_made_listed_and_ended_by_command(
    run: Run, writers_database: str, writers_folder: Path
) -> None:
    assert (
        await run("registration-token", "make", "by-command", "--uses", "1", "--days", "2")
    ).output == "by-command\n"
    made = (await run("registration-token", "make")).output.strip()
    assert len(made) >= 16
    for wrong in ("by-command", "not a token", "x" * 65):
        assert (await run("registration-token", "make", wrong)).exit_code == 1
    async with serving(settings_for(writers_database, writers_folder, WALDEN_REGISTRATION="token")) as other:
        auth = {"type": "m.login.registration_token", "token": "by-command"}
        body = {"username": "commanded", "password": "secret!", "auth": auth}
        (await other.anybody.post("register", body)).ok()
        rows = (await run("registration-token", "list", "--json")).output.splitlines()
        found = {row["token"]: row for row in map(json.loads, rows)}
        assert (found["by-command"]["completed"], found["by-command"]["valid"]) == (1, False)
        assert found[made]["valid"] is True and found[made]["uses_allowed"] is None
        assert (await run("registration-token", "end", "--", made)).exit_code == 0
        again = {**body, "username": "commanded2", "auth": {**auth, "token": made}}
        assert (await other.anybody.post("register", again)).status == 401
    assert (await run("registration-token", "end", "--", made)).exit_code == 1
