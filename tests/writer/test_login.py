import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_server import Answer, Api, Client, eventually, serving, settings_for


def _body(user: str, password: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
        **more,
    }


async def test_there_is_login_by_password(api: Api) -> None:
    assert {"type": "m.login.password"} in (await api.anybody.get("login")).ok()["flows"]


async def test_a_user_logs_in_by_localpart_by_user_id_and_the_old_way(api: Api) -> None:
    alice = await api.register()
    localpart = alice.user_id[1:].partition(":")[0]
    for name in (localpart, alice.user_id, localpart.upper()):
        answer = (await api.anybody.post("login", _body(name, alice.password))).ok()
        assert answer["user_id"] == alice.user_id
    old = {"type": "m.login.password", "user": localpart, "password": alice.password}
    assert (await api.anybody.post("login", old)).ok()["user_id"] == alice.user_id


async def test_a_wrong_password_and_an_unknown_name_are_one_answer(api: Api) -> None:
    alice = await api.register()
    wrong = await api.anybody.post("login", _body(alice.user_id, "wrong"))
    unknown = await api.anybody.post("login", _body("@nobody.at.all:test.example", "wrong"))
    elsewhere = await api.anybody.post("login", _body("@alice:elsewhere.example", "wrong"))
    assert wrong.refusal == unknown.refusal == elsewhere.refusal == (403, "M_FORBIDDEN")
    assert wrong.body == unknown.body == elsewhere.body


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"type": None}, (400, "M_MISSING_PARAM")),
        ({"type": 3}, (400, "M_BAD_JSON")),
        ({"type": "m.login.token"}, (400, "M_MISSING_PARAM")),
        ({"type": "m.login.token", "token": "nonsense"}, (403, "M_FORBIDDEN")),
        ({"type": "m.login.magic"}, (400, "M_UNKNOWN")),
        ({"identifier": None}, (400, "M_MISSING_PARAM")),
        ({"identifier": "me"}, (400, "M_BAD_JSON")),
        ({"identifier": {}}, (400, "M_MISSING_PARAM")),
        ({"identifier": {"type": "m.id.user"}}, (400, "M_MISSING_PARAM")),
        ({"identifier": {"type": "m.id.user", "user": 5}}, (400, "M_BAD_JSON")),
        ({"identifier": {"type": "m.id.other"}}, (400, "M_UNKNOWN")),
        ({"identifier": {"type": "m.id.thirdparty", "medium": "email"}}, (403, "M_FORBIDDEN")),
        ({"identifier": {"type": "m.id.user", "user": "nul\0"}}, (403, "M_FORBIDDEN")),
        ({"password": None}, (400, "M_MISSING_PARAM")),
        ({"password": 5}, (400, "M_BAD_JSON")),
        ({"device_id": 5}, (400, "M_BAD_JSON")),
        ({"device_id": ""}, (400, "M_INVALID_PARAM")),
        ({"device_id": "x" * 256}, (400, "M_INVALID_PARAM")),
        ({"device_id": "nul\0"}, (400, "M_INVALID_PARAM")),
        ({"initial_device_display_name": []}, (400, "M_BAD_JSON")),
        ({"refresh_token": "yes"}, (400, "M_BAD_JSON")),
    ],
)
async def test_a_login_that_is_not_well_formed_is_refused(
    api: Api, change: dict[str, Any], refusal: tuple[int, str]
) -> None:
    body = {key: value for key, value in {**_body("someone", "x"), **change}.items() if value is not None}
    assert (await api.anybody.post("login", body)).refusal == refusal


async def test_a_device_that_logs_in_again_keeps_its_name_and_loses_its_token(api: Api) -> None:
    alice = await api.register()
    first = await api.login(alice, device_id="D1", initial_device_display_name="Laptop")
    second = await api.login(alice, device_id="D1", initial_device_display_name="Another name")
    assert (await first.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")
    assert (await second.get("devices/D1")).ok()["display_name"] == "Laptop"


async def test_logging_out_ends_the_token_and_deletes_the_device(api: Api) -> None:
    alice = await api.register()
    phone = await api.login(alice, device_id="PHONE")
    (await phone.get("account/whoami")).ok()
    assert (await phone.post("logout")).ok() == {}
    assert (await phone.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")
    assert (await alice.get("devices/PHONE")).refusal == (404, "M_NOT_FOUND")
    (await alice.get("account/whoami")).ok()


async def test_logging_out_everywhere_ends_every_token(api: Api) -> None:
    alice = await api.register()
    phone = await api.login(alice)
    (await phone.get("account/whoami")).ok()
    (await alice.post("logout/all", {})).ok()
    for device in (alice, phone):
        assert (await device.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")


async def test_a_logout_in_one_process_is_known_in_the_other(
    api: Api, writers_database: str, writers_folder: Path
) -> None:
    alice = await api.register()
    async with serving(settings_for(writers_database, writers_folder)) as other:
        there = Client(other, alice.user_id, alice.token)
        await _until_listening(other)
        (await there.get("account/whoami")).ok()
        assert other.process.sessions.cached(alice.token) is not None
        (await alice.post("logout")).ok()

        async def ended() -> bool:
            return (await there.get("account/whoami")).status == 401

        await eventually(ended)


async def _until_listening(api: Api, listening: bool = True) -> None:
    async def as_wanted() -> bool:
        return api.process.sessions.listening is listening

    await eventually(as_wanted)


async def test_nothing_is_taken_from_the_cache_while_nobody_listens(api: Api, writers_database: str) -> None:
    alice = await api.register()
    await _until_listening(api)
    # The word of the registration itself may still be on its way, and forgets what was looked up before it came.
    async with asyncio.timeout(10):
        while api.process.sessions.cached(alice.token) is None:
            (await alice.get("account/whoami")).ok()
    with psycopg.connect(writers_database, autocommit=True) as connection:
        ended = connection.execute(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where application_name = 'walden api sessions' and datname = current_database()"
        ).fetchone()
        assert ended and ended[0] >= 1
        await _until_listening(api, False)
        assert api.process.sessions.cached(alice.token) is None
        connection.execute("delete from writer.sessions where user_id = %s", [alice.user_id])
    # Nobody announced that, and it is seen all the same.
    assert (await alice.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")
    await _until_listening(api)


async def test_a_refresh_token_gives_new_tokens_and_dies_when_they_are_used(api: Api) -> None:
    alice = await api.register()
    made = (await api.anybody.post("login", _body(alice.user_id, alice.password, refresh_token=True))).ok()
    assert made["expires_in_ms"] > 0
    first = (await api.anybody.post("refresh", {"refresh_token": made["refresh_token"]})).ok()
    # The answer got lost: the old token still works, and so does the old access token.
    (await Client(api, token=made["access_token"]).get("account/whoami")).ok()
    second = (await api.anybody.post("refresh", {"refresh_token": made["refresh_token"]})).ok()
    assert (await Client(api, token=first["access_token"]).get("account/whoami")).status == 401
    (await Client(api, token=second["access_token"]).get("account/whoami")).ok()
    used = await api.anybody.post("refresh", {"refresh_token": made["refresh_token"]})
    assert used.refusal == (401, "M_UNKNOWN_TOKEN")
    assert (await Client(api, token=made["access_token"]).get("account/whoami")).status == 401
    third = (await api.anybody.post("refresh", {"refresh_token": second["refresh_token"]})).ok()
    fourth = (await api.anybody.post("refresh", {"refresh_token": third["refresh_token"]})).ok()
    assert (await api.anybody.post("refresh", {"refresh_token": second["refresh_token"]})).status == 401
    (await Client(api, token=fourth["access_token"]).get("account/whoami")).ok()


@contextlib.contextmanager
def _time_that_is_lost(dsn: str, user_id: str) -> Iterator[None]:
    """What happens to the user's sessions meanwhile is taken back at the end, as a restore does."""
    names = "token_hash, user_id, device_id, created_at, expires_at, refresh_hash"
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = connection.execute(f"select {names} from writer.sessions where user_id = %s", [user_id]).fetchall()
        yield
        connection.execute("delete from writer.sessions where user_id = %s", [user_id])
        for row in before:
            connection.execute(f"insert into writer.sessions ({names}) values (%s, %s, %s, %s, %s, %s)", row)


def _begin_epoch(dsn: str, why: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "select eventlog.begin_epoch_v2(%s, epoch, %s, system_identifier, timeline, database_oid)"
            " from eventlog.epochs order by ordinal desc limit 1",
            [secrets.token_hex(4), why],
        )


async def test_a_refresh_token_of_the_lost_time_is_accepted_once_its_loss_was_declared(
    api: Api, writers_database: str
) -> None:
    alice = await api.register()

    async def refresh(token: str) -> Answer:
        return await api.anybody.post("refresh", {"refresh_token": token})

    made = (await api.anybody.post("login", _body(alice.user_id, alice.password, refresh_token=True))).ok()
    rotated = (await refresh(made["refresh_token"])).ok()
    (await Client(api, token=rotated["access_token"]).get("account/whoami")).ok()
    with _time_that_is_lost(writers_database, alice.user_id):
        once = (await refresh(rotated["refresh_token"])).ok()
        (await Client(api, token=once["access_token"]).get("account/whoami")).ok()
        twice = (await refresh(once["refresh_token"])).ok()
        new = (await api.anybody.post("login", _body(alice.user_id, alice.password, refresh_token=True))).ok()
    with psycopg.connect(writers_database, autocommit=True) as connection:
        connection.execute("delete from writer.devices where device_id = %s", [new["device_id"]])
    # Nobody has said that anything was lost, or that all was planned: what is not known is not valid.
    assert (await refresh(twice["refresh_token"])).refusal == (401, "M_UNKNOWN_TOKEN")
    _begin_epoch(writers_database, "planned")
    assert (await refresh(twice["refresh_token"])).refusal == (401, "M_UNKNOWN_TOKEN")
    _begin_epoch(writers_database, "recover")
    # What was revoked before the fork stays so; a device that is not known is none; a forged code is none.
    for token in (made["refresh_token"], new["refresh_token"], twice["refresh_token"][:-2] + "zz", "wr1.e30.e30"):
        assert (await refresh(token)).refusal == (401, "M_UNKNOWN_TOKEN")
    (await refresh(twice["refresh_token"])).ok()
    # The answer was lost: again.
    fresh = (await refresh(twice["refresh_token"])).ok()
    me = (await Client(api, token=fresh["access_token"]).get("account/whoami")).ok()
    assert (me["user_id"], me["device_id"]) == (alice.user_id, made["device_id"])
    # Now the device is known to have gone on, and no other token of the lost time counts.
    for token in (once["refresh_token"], twice["refresh_token"], rotated["refresh_token"]):
        assert (await refresh(token)).refusal == (401, "M_UNKNOWN_TOKEN")
    (await refresh(fresh["refresh_token"])).ok()


async def test_a_token_that_has_expired_asks_for_a_refresh(api: Api, writers_database: str) -> None:
    alice = await api.register()
    made = (await api.anybody.post("login", _body(alice.user_id, alice.password, refresh_token=True))).ok()
    with psycopg.connect(writers_database, autocommit=True) as connection:
        connection.execute(
            "update writer.sessions set expires_at = now() - interval '1 s' where user_id = %s and refresh_hash is not null",
            [alice.user_id],
        )
    answer = await Client(api, token=made["access_token"]).get("account/whoami")
    assert answer.refusal == (401, "M_UNKNOWN_TOKEN")
    assert answer.body["soft_logout"] is True
    fresh = (await api.anybody.post("refresh", {"refresh_token": made["refresh_token"]})).ok()
    (await Client(api, token=fresh["access_token"]).get("account/whoami")).ok()


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"refresh_token": 1}, (400, "M_BAD_JSON")),
        ({"refresh_token": "nonsense"}, (401, "M_UNKNOWN_TOKEN")),
        ({"refresh_token": "\0"}, (401, "M_UNKNOWN_TOKEN")),
    ],
)
async def test_a_refresh_token_that_is_none_is_refused(
    api: Api, body: dict[str, Any], refusal: tuple[int, str]
) -> None:
    assert (await api.anybody.post("refresh", body)).refusal == refusal


async def test_tokens_are_stored_as_hashes_alone(api: Api, writers_database: str) -> None:
    alice = await api.register()
    with psycopg.connect(writers_database) as connection:
        rows = connection.execute(
            "select s::text from writer.sessions s where user_id = %s union all"
            " select a::text from writer.accounts a where user_id = %s",
            [alice.user_id, alice.user_id],
        ).fetchall()
    assert len(rows) == 2
    assert not any(alice.token in row[0] or alice.password in row[0] for row in rows)
