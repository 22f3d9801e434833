"""matrix-nio and matrix-js-sdk talk in a room of a Walden that runs as separate processes."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from js_person import JsPerson
from nio import ProfileSetDisplayNameError, RoomMemberEvent, RoomMessageText
from nio_person import NioPerson, good
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.clients, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(420)]

PASSWORD = "a fine password"
EACH = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    # Two API processes: who sends and who listens need not be served by the same one.
    with WholeServer(tmp_path_factory.mktemp("whole") / "d", WALDEN_CLIENT_PROCESSES="2") as one:
        yield one


async def test_two_stock_clients_hold_a_conversation_and_see_the_same(server: WholeServer, tmp_path: Path) -> None:
    async with JsPerson(tmp_path / "js.log") as jay, NioPerson(server.url, "nia") as nia:
        jay_id = await jay.do("register", baseUrl=server.url, username="jay", password=PASSWORD)
        assert jay_id == f"@jay:{SERVER_NAME}"
        nia_id = await _come_in(nia)

        room_id = await _meet(jay, nia, nia_id)
        said = await _talk(jay, jay_id, nia, nia_id, room_id)
        await _type(jay, jay_id, nia, nia_id, room_id)
        await _read(jay, jay_id, nia, nia_id, room_id, said)
        await _correct(jay, nia, room_id)
        await _take_back(jay, nia, room_id)
        await _rename(jay, jay_id, nia, nia_id, room_id)

        seen = await _part(jay, nia, nia_id, room_id)
        assert nia.refusals == seen["refusals"] == []
        # From her joining to her leaving both were there.
        js_order = [event["event_id"] for event in seen["timeline"]]
        nio_order = [event.event_id for event in nia.events[room_id] + nia.left[room_id]]
        joins = [e["event_id"] for e in seen["timeline"] if e["state_key"] == nia_id and e["type"] == "m.room.member"]
        begin = joins[1]
        js_part = js_order[js_order.index(begin) :]
        assert nio_order[nio_order.index(begin) :] == js_part
        await jay.do("logout")
        good(await nia.client.logout())


async def _come_in(nia: NioPerson) -> str:
    """Register, log out, and log in again on the same device."""
    good(await nia.client.register("nia", PASSWORD, device_name="a device"))
    device_id = nia.client.device_id
    good(await nia.client.logout())
    answer = good(await nia.client.login(PASSWORD))
    assert answer.device_id == device_id
    nia.listen()
    return str(answer.user_id)


async def _meet(jay: JsPerson, nia: NioPerson, nia_id: str) -> str:
    options = {"preset": "private_chat", "name": "Two of us", "topic": "this and that", "invite": [nia_id]}
    room_id: str = await jay.do("createRoom", options=options)
    await nia.until(lambda: room_id in nia.invites)
    assert nia.client.invited_rooms[room_id].name == "Two of us"
    good(await nia.client.join(room_id))
    seen = await jay.until(room_id, lambda room: room["members"].get(nia_id, {}).get("membership") == "join")
    assert seen["name"] == "Two of us"
    await nia.until(lambda: room_id in nia.client.rooms)
    await nia.until(lambda: len(nia.client.rooms[room_id].users) == 2)
    assert nia.client.rooms[room_id].topic == "this and that"
    return room_id


async def _talk(jay: JsPerson, jay_id: str, nia: NioPerson, nia_id: str, room_id: str) -> dict[str, str]:
    """First in turn, then both at once; returns each one's last event id."""
    sent: dict[str, list[tuple[str, str]]] = {jay_id: [], nia_id: []}

    async def jay_says(text: str) -> None:
        sent[jay_id].append((await jay.do("send", roomId=room_id, text=text), text))

    async def nia_says(text: str) -> None:
        sent[nia_id].append((await nia.say(room_id, text), text))

    for number in range(5):
        await jay_says(f"jay in turn {number} — ünïcödé 🐘")
        await nia_says(f"nia in turn {number} \u0000 and more")

    async def all_of(say: Any, name: str) -> None:
        for number in range(EACH):
            await say(f"{name} at once {number}")

    await asyncio.gather(all_of(jay_says, "jay"), all_of(nia_says, "nia"))

    def by_nio(user_id: str) -> list[tuple[str, str]]:
        events = [e for e in nia.events[room_id] if isinstance(e, RoomMessageText) and e.sender == user_id]
        return [(event.event_id, event.body) for event in events]

    def by_js(room: Any, user_id: str) -> list[tuple[str, str]]:
        events = [e for e in room["timeline"] if e["type"] == "m.room.message" and e["sender"] == user_id]
        return [(event["event_id"], event["content"]["body"]) for event in events]

    for user_id, messages in sent.items():
        await nia.until(lambda user_id=user_id, messages=messages: len(by_nio(user_id)) >= len(messages))  # type: ignore[misc]
        assert by_nio(user_id) == messages
        seen = await jay.until(
            room_id, lambda room, user_id=user_id, messages=messages: len(by_js(room, user_id)) >= len(messages)
        )
        assert by_js(seen, user_id) == messages
    return {user_id: messages[-1][0] for user_id, messages in sent.items()}


async def _type(jay: JsPerson, jay_id: str, nia: NioPerson, nia_id: str, room_id: str) -> None:
    good(await nia.client.room_typing(room_id, True, timeout=20_000))
    await jay.until(room_id, lambda room: room["members"][nia_id]["typing"])
    good(await nia.client.room_typing(room_id, False))
    await jay.until(room_id, lambda room: not room["members"][nia_id]["typing"])
    await jay.do("typing", roomId=room_id, typing=True)
    await nia.until(lambda: nia.typing.get(room_id) == [jay_id])
    await jay.do("typing", roomId=room_id, typing=False)
    await nia.until(lambda: nia.typing.get(room_id) == [])


async def _read(jay: JsPerson, jay_id: str, nia: NioPerson, nia_id: str, room_id: str, last: dict[str, str]) -> None:
    good(await nia.client.room_read_markers(room_id, last[jay_id], last[jay_id]))
    await jay.until(room_id, lambda room: room["readUpTo"][nia_id] == last[jay_id])
    await jay.do("read", roomId=room_id, eventId=last[nia_id])
    await nia.until(lambda: nia.receipts.get((room_id, jay_id)) == last[nia_id])


async def _correct(jay: JsPerson, nia: NioPerson, room_id: str) -> None:
    wrong = await nia.say(room_id, "what nia did not mean")
    edit = {
        "msgtype": "m.text",
        "body": "* what nia means",
        "m.new_content": {"msgtype": "m.text", "body": "what nia means"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": wrong},
    }
    await nia.send(room_id, edit)
    await jay.until(room_id, lambda room: _of(room, wrong).get("content", {}).get("body") == "what nia means")
    wrong = await jay.do("send", roomId=room_id, text="what jay did not mean")
    edited = await jay.do("edit", roomId=room_id, eventId=wrong, text="what jay means")
    await nia.until(lambda: nia.events[room_id][-1].event_id == edited)
    content = nia.events[room_id][-1].source["content"]
    assert content["m.new_content"]["body"] == "what jay means"
    assert content["m.relates_to"]["event_id"] == wrong


async def _take_back(jay: JsPerson, nia: NioPerson, room_id: str) -> None:
    regretted = await nia.say(room_id, "nia regrets this")
    good(await nia.client.room_redact(room_id, regretted, reason="regret"))
    seen = await jay.until(room_id, lambda room: _of(room, regretted).get("redacted"))
    assert _of(seen, regretted)["content"] == {}
    regretted = await jay.do("send", roomId=room_id, text="jay regrets this")
    redaction = await jay.do("redact", roomId=room_id, eventId=regretted, reason="so does jay")
    await nia.until(lambda: nia.events[room_id][-1].event_id == redaction)
    event = nia.events[room_id][-1]
    assert event.source["type"] == "m.room.redaction"
    assert event.source["content"]["reason"] == "so does jay"
    assert regretted in (event.source.get("redacts"), event.source["content"].get("redacts"))


async def _rename(jay: JsPerson, jay_id: str, nia: NioPerson, nia_id: str, room_id: str) -> None:
    assert not isinstance(await nia.client.set_displayname("Nia N."), ProfileSetDisplayNameError)
    await jay.until(room_id, lambda room: room["members"][nia_id]["name"] == "Nia N.")
    await jay.do("displayName", name="Jay J.")
    await nia.until(lambda: nia.client.rooms[room_id].user_name(jay_id) == "Jay J.")
    event = nia.events[room_id][-1]
    assert isinstance(event, RoomMemberEvent)
    assert event.content["displayname"] == "Jay J."
    assert event.membership == "join"


async def _part(jay: JsPerson, nia: NioPerson, nia_id: str, room_id: str) -> Any:
    good(await nia.client.room_leave(room_id))
    seen = await jay.until(room_id, lambda room: room["members"][nia_id]["membership"] == "leave")
    await nia.until(lambda: room_id in nia.left)
    good(await nia.client.room_forget(room_id))
    assert room_id not in nia.client.rooms
    return seen


def _of(room: Any, event_id: str) -> Any:
    return next((event for event in room["timeline"] if event["event_id"] == event_id), {})
