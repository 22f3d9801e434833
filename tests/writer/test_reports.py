"""Reports of rooms, events and users."""

from __future__ import annotations

from typing import Any

import psycopg
from api_server import Api, part


def reports(dsn: str, reporter: str) -> list[tuple[Any, ...]]:
    """What people who run the server see of somebody's reports."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "select room_id, event_id, user_id, reason from history.reports where reporter = %s order by report",
            [reporter],
        ).fetchall()


async def test_rooms_events_and_users_are_reported(api: Api, writers_database: str) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    event_id = await alice.send(room_id, "spam")
    # Whoever is not in a room can report it, but not what is said there.
    assert (await bob.post(f"rooms/{room_id}/report", {"reason": ""})).ok() == {}
    path = f"rooms/{room_id}/report/{part(event_id)}"
    assert (await bob.post(path, {"reason": "x"})).refusal == (404, "M_NOT_FOUND")
    (await bob.post(f"join/{room_id}", {})).ok()
    assert (await bob.post(path, {"reason": "nul \0", "score": -50})).ok() == {}
    assert (await bob.post(path, {})).ok() == {}
    assert (await bob.post(f"users/{part(alice.user_id)}/report", {"reason": "a spammer"})).ok() == {}
    assert reports(writers_database, bob.user_id) == [
        (room_id, None, None, ""),
        (room_id, event_id, None, "nul \U0010ffff0"),
        (room_id, event_id, None, ""),
        (None, None, alice.user_id, "a spammer"),
    ]


async def test_what_is_not_there_or_says_nothing_is_not_reported(api: Api, writers_database: str) -> None:
    alice = await api.register()
    room_id, other = await alice.create_room(), await alice.create_room()
    elsewhere = await alice.send(other)
    for path in (
        "rooms/!nowhere:test.example/report",
        f"rooms/{room_id}/report/{part(elsewhere)}",
        f"rooms/{room_id}/report/%24unknown",
        "users/@nobody:test.example/report",
        "users/nonsense/report",
    ):
        assert (await alice.post(path, {"reason": "x"})).refusal == (404, "M_NOT_FOUND")
    for path in (f"rooms/{room_id}/report", f"users/{alice.user_id}/report"):
        assert (await alice.post(path, {})).refusal == (400, "M_MISSING_PARAM")
        assert (await alice.post(path, {"reason": 1})).refusal == (400, "M_BAD_JSON")
        assert (await alice.post(path, {"reason": "x" * 10_001})).refusal == (413, "M_TOO_LARGE")
    assert reports(writers_database, alice.user_id) == []
