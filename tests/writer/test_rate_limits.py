import dataclasses
from pathlib import Path

import pytest
from api_server import Api, Client, serving, settings_for

from eventlog.configuration import load_settings
from eventlog.settings import RateLimits as Rates
from matrix.errors import MatrixError
from writer import rate_limits
from writer.rate_limits import MOST_BUCKETS, RateLimits, caller_at

DEFAULTS = load_settings({}, Path("/nonexistent/walden.toml")).rate_limits


def _limits(monkeypatch: pytest.MonkeyPatch, **changes: float) -> tuple[RateLimits, list[float]]:
    now = [1000.0]
    monkeypatch.setattr(rate_limits, "monotonic", lambda: now[0])
    rates: Rates = dataclasses.replace(DEFAULTS, **changes)  # type: ignore[arg-type]
    return RateLimits(rates), now


def _wait(limits: RateLimits, caller: str, count: int = 1) -> int:
    with pytest.raises(MatrixError) as refusal:
        limits.take("message", caller, count)
    assert (refusal.value.status, refusal.value.errcode) == (429, "M_LIMIT_EXCEEDED")
    wait = refusal.value.extra["retry_after_ms"]
    assert isinstance(wait, int)
    return wait


def test_a_bucket_gives_its_burst_and_then_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, now = _limits(monkeypatch, message_per_second=2.0, message_burst=3)
    for _ in range(3):
        limits.take("message", "a")
    assert _wait(limits, "a") == 500
    limits.take("message", "b")
    now[0] += 0.5
    limits.take("message", "a")
    assert _wait(limits, "a") == 500
    now[0] += 1000
    for _ in range(3):
        limits.take("message", "a")
    _wait(limits, "a")


def test_all_addresses_that_one_subscriber_has_are_one_caller() -> None:
    assert caller_at("192.0.2.1") != caller_at("192.0.2.2")
    assert caller_at("2001:db8:0:7::1") == caller_at("2001:DB8:0:7:ffff::2%eth0")
    assert caller_at("2001:db8:0:7::1") != caller_at("2001:db8:0:8::1")
    assert caller_at("nobody: knows") == "nobody: knows"


def test_who_takes_more_than_a_burst_needs_a_full_bucket_and_pays_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, now = _limits(monkeypatch, message_per_second=1.0, message_burst=3)
    limits.take("message", "a", 5)
    assert _wait(limits, "a") == 3000
    now[0] += 3
    limits.take("message", "a")


def test_a_charge_is_never_refused_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, _ = _limits(monkeypatch, message_burst=2)
    limits.check("message", "a")
    for _ in range(3):
        limits.charge("message", "a")
    with pytest.raises(MatrixError):
        limits.check("message", "a")


def test_the_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, _ = _limits(monkeypatch)
    for number in range(MOST_BUCKETS + 10):
        limits.take("message", str(number))
    assert len(limits._buckets) == MOST_BUCKETS


def test_limits_that_are_off_limit_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, _ = _limits(monkeypatch, enabled=False, message_burst=1)
    for _ in range(100):
        limits.take("message", "a")


async def test_a_request_too_many_is_told_when_to_come_again(
    api: Api, writers_database: str, writers_folder: Path
) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    settings = settings_for(
        writers_database,
        writers_folder,
        WALDEN_RATE_LIMITS="on",
        WALDEN_RATE_LIMITS_MESSAGE_BURST="2",
        WALDEN_RATE_LIMITS_MESSAGE_PER_SECOND="0.01",
        WALDEN_RATE_LIMITS_LOGIN_BURST="3",
        WALDEN_RATE_LIMITS_LOGIN_PER_SECOND="0.01",
        WALDEN_RATE_LIMITS_ROOM_BURST="1",
        WALDEN_RATE_LIMITS_JOIN_BURST="1",
        WALDEN_RATE_LIMITS_INVITE_BURST="1",
        WALDEN_RATE_LIMITS_REGISTRATION_BURST="1",
    )
    async with serving(settings) as limited:
        there = Client(limited, alice.user_id, alice.token)
        for _ in range(2):
            await there.send(room_id)
        answer = await there.put(f"rooms/{room_id}/send/m.room.message/x", {})
        assert answer.refusal == (429, "M_LIMIT_EXCEEDED")
        assert 90_000 < answer.body["retry_after_ms"] <= 100_000
        assert 90 <= int(answer.headers["retry-after"]) <= 100
        (await there.post("createRoom", {})).ok()
        assert (await there.post("createRoom", {})).refusal == (429, "M_LIMIT_EXCEEDED")
        (await there.post(f"join/{room_id}", {})).ok()
        assert (await there.post(f"join/{room_id}", {})).refusal == (429, "M_LIMIT_EXCEEDED")
        body = {"user_id": "@anyone:test.example"}
        (await there.post(f"rooms/{room_id}/invite", body)).ok()
        assert (await there.post(f"rooms/{room_id}/invite", body)).refusal == (429, "M_LIMIT_EXCEEDED")
        register = {"auth": {"type": "m.login.dummy"}, "password": "x"}
        (await limited.anybody.post("register", register)).ok()
        assert (await limited.anybody.post("register", register)).refusal == (429, "M_LIMIT_EXCEEDED")
        login = {"type": "m.login.password", "user": alice.user_id, "password": "wrong"}
        answers = [(await limited.anybody.post("login", login)).status for _ in range(5)]
        assert answers == [403, 403, 403, 429, 429]


async def test_failed_logins_count_against_the_account_whatever_the_address(
    api: Api, writers_database: str, writers_folder: Path
) -> None:
    alice = await api.register()
    settings = settings_for(
        writers_database,
        writers_folder,
        WALDEN_RATE_LIMITS="on",
        WALDEN_RATE_LIMITS_LOGIN_BURST="3",
        WALDEN_RATE_LIMITS_LOGIN_PER_SECOND="0.01",
        WALDEN_CLIENT_TRUSTED_PROXIES="198.51.100.7",
    )
    # All of them open the account.
    names = [
        alice.user_id,
        alice.user_id.upper().replace("TEST.EXAMPLE", "test.example"),
        alice.user_id[1:].partition(":")[0],
    ]
    names.append(names[-1].upper())
    async with serving(settings) as limited:

        async def attempt(address: str, name: str, password: str) -> int:
            headers = {"X-Forwarded-For": f"10.0.0.1, {address}, 198.51.100.7"}
            body = {"type": "m.login.password", "user": name, "password": password}
            return (await limited.anybody.call("POST", "login", body, headers=headers)).status

        assert await attempt("203.0.113.8", names[-1], alice.password) == 200
        answers = [await attempt(f"203.0.113.{n}", name, "wrong") for n, name in enumerate(names)]
        assert answers == [403, 403, 403, 429]
        assert await attempt("203.0.113.9", alice.user_id, alice.password) == 429


async def test_every_endpoint_is_limited_per_user_and_without_one_per_address(
    writers_database: str, writers_folder: Path
) -> None:
    limits = {
        "WALDEN_RATE_LIMITS": "on",
        "WALDEN_RATE_LIMITS_REQUEST_BURST": "20",
        "WALDEN_RATE_LIMITS_REQUEST_PER_SECOND": "0.001",
    }
    async with serving(settings_for(writers_database, writers_folder, **limits)) as other:
        alice, bob = await other.register(), await other.register()
        answers = [await alice.get("account/whoami") for _ in range(21)]
        assert [answer.status for answer in answers] == [200] * 20 + [429]
        assert int(answers[-1].headers["retry-after"]) > 0
        assert (await alice.get("devices")).refusal == (429, "M_LIMIT_EXCEEDED")
        (await bob.get("account/whoami")).ok()
        # Two registrations were asked for already.
        public = [await other.anybody.get("/_matrix/client/versions") for _ in range(19)]
        assert [answer.status for answer in public] == [200] * 18 + [429]
