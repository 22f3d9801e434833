from typing import Any

import psycopg
import pytest
from api_server import Api, Client, part


async def _room(api: Api) -> tuple[Client, Client, str, str]:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{room_id}", {})).ok()
    return alice, bob, room_id, await alice.send(room_id)


def _receipts(dsn: str, user: Client, room_id: str) -> dict[tuple[str, str], str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select r.receipt_type, r.thread_id, r.event_id from roomserver.receipts r"
            " join roomserver.rooms n on n.nid = r.room where r.user_id = %s and n.room_id = %s",
            [user.user_id, room_id],
        ).fetchall()
    return {(row[0], row[1]): row[2] for row in rows}


async def test_a_receipt_is_kept_by_type_and_thread(api: Api, writers_database: str) -> None:
    _, bob, room_id, event_id = await _room(api)
    path = f"rooms/{room_id}/receipt"
    assert (await bob.post(f"{path}/m.read/{part(event_id)}")).ok() == {}
    (await bob.post(f"{path}/m.read.private/{part(event_id)}", {})).ok()
    (await bob.post(f"{path}/m.read/{part(event_id)}", {"thread_id": "main"})).ok()
    assert _receipts(writers_database, bob, room_id) == {
        ("m.read", ""): event_id,
        ("m.read.private", ""): event_id,
        ("m.read", "main"): event_id,
    }


async def test_a_threaded_receipt_is_for_an_event_of_the_thread(api: Api, writers_database: str) -> None:
    alice, bob, room_id, root = await _room(api)

    async def reply(kind: str, target: str) -> str:
        content = {"msgtype": "m.text", "body": "x", "m.relates_to": {"rel_type": kind, "event_id": target}}
        sent = await alice.put(f"rooms/{room_id}/send/m.room.message/{kind}{target[:9]}", content)
        event_id: str = sent.ok()["event_id"]
        return event_id

    inside = await reply("m.thread", root)
    about = await reply("m.reference", inside)
    quoting = await reply("m.reference", root)
    outside = await alice.send(room_id)
    path = f"rooms/{room_id}/receipt/m.read"
    related = ((root, root), (inside, root), (about, root), (quoting, root))
    for event_id, thread_id in (*related, (root, "main"), (quoting, "main"), (outside, "main")):
        assert (await bob.post(f"{path}/{part(event_id)}", {"thread_id": thread_id})).ok() == {}
    for event_id, thread_id in (
        (outside, root),
        (inside, "main"),
        (about, "main"),
        (about, inside),
        (root, "$nothing"),
    ):
        answer = await bob.post(f"{path}/{part(event_id)}", {"thread_id": thread_id})
        assert answer.refusal == (400, "M_INVALID_PARAM")


async def test_an_older_receipt_does_not_take_a_later_ones_place(api: Api, writers_database: str) -> None:
    alice, bob, room_id, older = await _room(api)
    later = await alice.send(room_id)
    for event_id in (later, older):
        (await bob.post(f"rooms/{room_id}/receipt/m.read/{part(event_id)}", {})).ok()
    assert _receipts(writers_database, bob, room_id) == {("m.read", ""): later}


async def test_the_read_marker_is_account_data_of_the_room(api: Api, writers_database: str) -> None:
    alice, bob, room_id, event_id = await _room(api)
    later = await alice.send(room_id)
    marker = f"user/{bob.user_id}/rooms/{room_id}/account_data/m.fully_read"
    (await bob.post(f"rooms/{room_id}/receipt/m.fully_read/{part(event_id)}", {})).ok()
    assert (await bob.get(marker)).ok() == {"event_id": event_id}
    body = {"m.fully_read": later, "m.read": later, "m.read.private": event_id}
    assert (await bob.post(f"rooms/{room_id}/read_markers", body)).ok() == {}
    assert (await bob.get(marker)).ok() == {"event_id": later}
    assert _receipts(writers_database, bob, room_id) == {("m.read", ""): later, ("m.read.private", ""): event_id}
    assert (await bob.post(f"rooms/{room_id}/read_markers", {})).ok() == {}


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        ("receipt/m.seen/$e", {}, (400, "M_INVALID_PARAM")),
        ("receipt/m.read/nonsense", {}, (400, "M_INVALID_PARAM")),
        ("receipt/m.read/%24nul%00", {}, (400, "M_INVALID_PARAM")),
        ("receipt/m.read/$e", {"thread_id": 5}, (400, "M_INVALID_PARAM")),
        ("receipt/m.read/$e", {"thread_id": None}, (400, "M_INVALID_PARAM")),
        ("receipt/m.read/$e", {"thread_id": ""}, (400, "M_INVALID_PARAM")),
        ("receipt/m.fully_read/$e", {"thread_id": "main"}, (400, "M_INVALID_PARAM")),
        ("receipt/m.fully_read/$e", {}, (400, "M_INVALID_PARAM")),
        ("receipt/m.read/$e", [], (400, "M_BAD_JSON")),
        ("read_markers", {"m.read": 5}, (400, "M_BAD_JSON")),
        ("read_markers", {"m.fully_read": "nonsense"}, (400, "M_INVALID_PARAM")),
        ("read_markers", {"m.fully_read": "$elsewhere"}, (400, "M_INVALID_PARAM")),
        ("read_markers", [], (400, "M_BAD_JSON")),
    ],
)
async def test_a_receipt_that_is_not_well_formed_is_refused(
    api: Api, path: str, body: Any, refusal: tuple[int, str]
) -> None:
    _, bob, room_id, _ = await _room(api)
    assert (await bob.post(f"rooms/{room_id}/{path}", body)).refusal == refusal


async def test_a_receipt_for_an_event_nobody_knows_is_refused(api: Api) -> None:
    _, bob, room_id, _ = await _room(api)
    assert (await bob.post(f"rooms/{room_id}/receipt/m.read/$unknown", {})).status == 400


async def test_who_is_outside_reads_and_types_nothing(api: Api) -> None:
    _, _, room_id, event_id = await _room(api)
    carol = await api.register()
    for room in (room_id, "!nowhere:test.example"):
        answer = await carol.post(f"rooms/{room}/receipt/m.read/{part(event_id)}", {})
        assert answer.refusal == (403, "M_FORBIDDEN")
        answer = await carol.post(f"rooms/{room}/read_markers", {"m.read": event_id})
        assert answer.refusal == (403, "M_FORBIDDEN")
        answer = await carol.put(f"rooms/{room}/typing/{carol.user_id}", {"typing": True})
        assert answer.refusal == (403, "M_FORBIDDEN")


async def test_typing_is_told_by_oneself_alone(api: Api) -> None:
    alice, bob, room_id, _ = await _room(api)
    path = f"rooms/{room_id}/typing/{bob.user_id}"
    for body in (
        {"typing": True, "timeout": 1000},
        {"typing": True},
        {"typing": True, "timeout": 10**12},
        {"typing": False},
    ):
        assert (await bob.put(path, body)).ok() == {}
    assert (await alice.put(path, {"typing": True})).refusal == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"typing": 1}, (400, "M_BAD_JSON")),
        ({"typing": True, "timeout": "soon"}, (400, "M_BAD_JSON")),
        ({"typing": True, "timeout": 1.5}, (400, "M_BAD_JSON")),
        ([], (400, "M_BAD_JSON")),
    ],
)
async def test_typing_that_is_not_well_formed_is_refused(api: Api, body: Any, refusal: tuple[int, str]) -> None:
    _, bob, room_id, _ = await _room(api)
    assert (await bob.put(f"rooms/{room_id}/typing/{bob.user_id}", body)).refusal == refusal
