import asyncio

import psycopg
import pytest
from api_server import Api, Client, eventually

from eventlog.sessions import Session, SessionCache, token_hash


async def _listening(cache: SessionCache) -> None:
    async def is_so() -> bool:
        return cache.listening

    await eventually(is_so)


def _cache(api: Api, dsn: str, **bounds: float) -> SessionCache:
    return SessionCache(api.process.pool, dsn, **bounds)  # type: ignore[arg-type]


async def test_the_cache_is_bounded_and_forgets_the_oldest(api: Api, writers_database: str) -> None:
    users = [await api.register() for _ in range(5)]
    async with _cache(api, writers_database, most=3) as cache:
        await _listening(cache)
        for user in users:
            await cache.session(user.token)
        assert [cache.cached(user.token) is not None for user in users] == [False, False, True, True, True]
        assert len(cache._of_user) == 3


async def test_what_is_known_is_looked_up_again_after_its_time(api: Api, writers_database: str) -> None:
    alice = await api.register()
    async with _cache(api, writers_database, ttl=0.05) as cache:
        await _listening(cache)
        await cache.session(alice.token)
        assert cache.cached(alice.token) is not None
        await asyncio.sleep(0.06)
        assert cache.cached(alice.token) is None
        assert (await cache.session(alice.token)).user_id == alice.user_id


async def test_a_session_that_ends_while_it_is_looked_up_is_not_remembered(api: Api, writers_database: str) -> None:
    alice = await api.register()
    async with _cache(api, writers_database) as cache:
        await _listening(cache)
        looking = asyncio.create_task(cache.session(alice.token))
        await asyncio.sleep(0)
        cache.forget(alice.user_id)
        await looking
        assert cache.cached(alice.token) is None


async def test_who_comes_while_a_session_is_looked_up_does_not_look_again(
    api: Api, writers_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await api.register()
    async with _cache(api, writers_database) as cache:
        await _listening(cache)
        looks = 0
        load = cache._load

        async def counted(key: bytes) -> Session:
            nonlocal looks
            looks += 1
            return await load(key)

        monkeypatch.setattr(cache, "_load", counted)
        found = await asyncio.gather(*(cache.session(alice.token) for _ in range(10)))
        assert {session.user_id for session in found} == {alice.user_id}
        assert looks == 1
        # Where the first one's answer does not hold, each looks for itself.
        cache.forget(alice.user_id)
        looking = [asyncio.create_task(cache.session(alice.token)) for _ in range(3)]
        await asyncio.sleep(0)
        cache.forget(alice.user_id)
        await asyncio.gather(*looking)
        assert looks == 4


async def test_a_no_is_not_remembered(api: Api, writers_database: str) -> None:
    alice = await api.register()
    unknown = Client(api, token="a token that comes later")
    assert (await unknown.get("account/whoami")).status == 401
    with psycopg.connect(writers_database, autocommit=True) as connection:
        connection.execute(
            "insert into writer.sessions (token_hash, user_id, device_id) values (%s, %s, %s)",
            [token_hash(unknown.token), alice.user_id, alice.device_id],
        )
    assert (await unknown.get("account/whoami")).ok()["user_id"] == alice.user_id


async def test_the_last_use_of_a_device_is_written_down(api: Api, writers_database: str) -> None:
    alice = await api.register()
    with psycopg.connect(writers_database, autocommit=True) as connection:
        connection.execute(
            "update writer.devices set last_seen_at = null, last_seen_ip = null where user_id = %s", [alice.user_id]
        )
        async with _cache(api, writers_database) as cache:
            session = await cache.session(alice.token)
            cache.see(session, "203.0.113.5")
            cache.see(session, "203.0.113.6")
        row = connection.execute(
            "select last_seen_ip, last_seen_at > now() - interval '1 minute' from writer.devices where user_id = %s",
            [alice.user_id],
        ).fetchone()
    assert row == ("203.0.113.5", True)
