import asyncio

import pytest
from api_server import Api

from matrix.errors import MatrixError
from matrix.identifiers import check_local_user_id
from writer import passwords as module
from writer.accounts import (
    create_account,
    deactivate_account,
    find_account,
    list_accounts,
    set_admin,
    set_password,
)
from writer.passwords import Passwords


def _cheap() -> Passwords:
    return Passwords(memory_kib=64, passes=1)


async def test_a_password_matches_its_own_hash_alone() -> None:
    passwords = _cheap()
    one, other = await passwords.hash("right \0 ü"), await passwords.hash("right \0 ü")
    assert one != other and one.startswith("$argon2id$")
    assert await passwords.matches("right \0 ü", one)
    for wrong, stored in (("wrong", one), ("right \0 ü", None), ("", None), ("", ""), ("x", "nonsense")):
        assert not await passwords.matches(wrong, stored)
    passwords.close()


async def test_hashing_does_not_hold_up_the_event_loop() -> None:
    passwords = Passwords()
    hashing = asyncio.create_task(passwords.hash("x"))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    passwords.close()


async def test_who_comes_when_too_many_wait_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 3)
    passwords = _cheap()
    answers = await asyncio.gather(*(passwords.hash("x") for _ in range(5)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, MatrixError)]
    assert [error.errcode for error in refused] == ["M_LIMIT_EXCEEDED"] * 2
    assert await passwords.hash("x")
    passwords.close()


async def test_accounts_are_made_listed_changed_and_ended_without_the_api(api: Api) -> None:
    passwords = _cheap()
    user_id = check_local_user_id("by.command.line", "test.example")
    async with api.process.pool.connection() as connection:
        await create_account(connection, user_id, "secret!", admin=True, passwords=passwords)
        with pytest.raises(MatrixError) as taken:
            await create_account(connection, user_id, None, passwords=passwords)
        assert taken.value.errcode == "M_USER_IN_USE"
        found = await find_account(connection, user_id)
        assert found is not None and found.admin and found.password_hash is not None
        listed = await list_accounts(connection, after=user_id[:-1], most=1)
        assert [account.user_id for account in listed] == [user_id]
        assert listed[0].password_hash is None and listed[0].devices == 0
        await set_admin(connection, user_id, False)
        await set_password(connection, user_id, "another", passwords=passwords)
        await deactivate_account(connection, user_id)
        for change in (
            set_password(connection, user_id, "x", passwords=passwords),
            set_admin(connection, user_id, True),
            deactivate_account(connection, user_id),
        ):
            with pytest.raises(MatrixError) as gone:
                await change
            assert gone.value.errcode == "M_NOT_FOUND"
        found = await find_account(connection, user_id)
        assert found is not None and found.deactivated_at is not None and found.password_hash is None
    passwords.close()


async def test_a_new_administrator_is_one_at_once(api: Api) -> None:
    alice = await api.register()
    (await alice.get("account/whoami")).ok()
    async with api.process.pool.connection() as connection:
        await set_admin(connection, alice.user_id, True)
    async with asyncio.timeout(5):
        while True:
            session = await api.process.sessions.session(alice.token)
            if session.admin:
                break
            await asyncio.sleep(0.005)
