"""What a client's own server refuses of relations, and of redactions that are sent as plain events."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from api_server import Answer, Api, Client, part

_numbers = itertools.count(1)


async def relate(user: Client, room_id: str, target: str, rel_type: str, txn: str | None = None, **more: Any) -> Answer:
    kind = more.pop("type", "m.reaction")
    content = {"body": "x", "m.relates_to": {"rel_type": rel_type, "event_id": target, **more}}
    return await user.put(f"rooms/{room_id}/send/{kind}/{txn or next(_numbers)}", content)


async def test_a_thread_cannot_begin_with_what_relates_to_something(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    root = await alice.send(room_id)
    reply = (await relate(alice, room_id, root, "m.thread", type="m.room.message")).ok()["event_id"]
    for target in (reply, (await relate(alice, room_id, root, "m.annotation", key="+1")).ok()["event_id"]):
        assert (await relate(alice, room_id, target, "m.thread")).refusal == (400, "M_UNKNOWN")
    content = {"body": "x", "m.relates_to": {"m.in_reply_to": {"event_id": root}}}
    answer = (await alice.put(f"rooms/{room_id}/send/m.room.message/{next(_numbers)}", content)).ok()["event_id"]
    # A rich reply has no relation type: a thread may begin with it.
    assert (await relate(alice, room_id, answer, "m.thread")).refusal == (200, None)
    for target in ("$unknown", "", "$with\0nul"):
        assert (await relate(alice, room_id, target, "m.thread")).refusal == (200, None)


async def test_one_annotates_an_event_once_with_one_key_and_type(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{room_id}", {})).ok()
    event = await alice.send(room_id)
    first = (await relate(alice, room_id, event, "m.annotation", "once", key="+1")).ok()["event_id"]
    # The same request again is the same event.
    assert (await relate(alice, room_id, event, "m.annotation", "once", key="+1")).ok()["event_id"] == first
    assert (await relate(alice, room_id, event, "m.annotation", key="+1")).refusal == (400, "M_DUPLICATE_ANNOTATION")
    for user, more in ((alice, {"key": "-1"}), (bob, {"key": "+1"}), (alice, {"key": "+1", "type": "org.example.x"})):
        assert (await relate(user, room_id, event, "m.annotation", **more)).refusal == (200, None)
    (await alice.put(f"rooms/{room_id}/redact/{part(first)}/{next(_numbers)}", {})).ok()
    assert (await relate(alice, room_id, event, "m.annotation", key="+1")).refusal == (200, None)


async def test_an_annotation_with_the_character_zero_is_one_like_any_other(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    event = await alice.send(room_id)
    assert (await relate(alice, room_id, event, "m.annotation", key="a\0b")).refusal == (200, None)
    assert (await relate(alice, room_id, event, "m.annotation", key="+1")).refusal == (200, None)
    assert (await relate(alice, room_id, event, "m.annotation", key="a\0b")).refusal == (400, "M_DUPLICATE_ANNOTATION")


@pytest.mark.parametrize("version", ["1", "5", "10", "11", "12"])
async def test_a_redaction_sent_as_an_event_is_checked_like_any_other(api: Api, version: str) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat", room_version=version)
    (await bob.post(f"join/{room_id}", {})).ok()
    event = await alice.send(room_id, "mine")
    path = f"rooms/{room_id}/send/m.room.redaction"
    assert (await bob.put(f"{path}/1", {"redacts": event})).refusal == (403, "M_FORBIDDEN")
    assert (await bob.put(f"{path}/2", {"redacts": "$unknown"})).refusal == (404, "M_NOT_FOUND")
    assert (await bob.put(f"{path}/2", {"redacts": 5})).refusal == (400, "M_BAD_JSON")
    sent = (await alice.put(f"{path}/3", {"redacts": event, "reason": "typo"})).ok()["event_id"]
    redacted = (await alice.get(f"rooms/{room_id}/event/{part(event)}")).ok()
    assert (redacted["content"], redacted["unsigned"]["redacted_because"]["event_id"]) == ({}, sent)
    assert (await alice.get(f"rooms/{room_id}/event/{part(sent)}")).ok()["content"]["reason"] == "typo"
    # The same request again is the same event.
    assert (await alice.put(f"{path}/3", {"redacts": event, "reason": "typo"})).ok()["event_id"] == sent
