"""mautrix, which bridges and bots are made with, and somebody who answers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from mautrix.client import Client, InternalEventType
from mautrix.client.state_store import MemoryStateStore, MemorySyncStore
from mautrix.errors import MForbidden, MNotFound
from mautrix.types import (
    Event,
    EventType,
    Membership,
    MessageEvent,
    MessageType,
    PaginationDirection,
    RoomCreatePreset,
    RoomDirectoryVisibility,
    TextMessageEventContent,
)
from people import Person
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.clients, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(420)]

PASSWORD = "a fine password"
SECONDS = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    with WholeServer(tmp_path_factory.mktemp("whole") / "d") as one:
        yield one


class Bot:
    """A logged in mautrix client that keeps what its handlers are given."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.events: list[Event] = []
        self.failures: list[object] = []
        self._news = asyncio.Event()
        client.add_event_handler(EventType.ALL, self._note, wait_sync=True)
        client.add_event_handler(InternalEventType.SYNC_ERRORED, self._fail)

    async def _note(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def _fail(self, data: object) -> None:
        self.failures.append(data)

    async def until(self, event_id: str) -> MessageEvent:
        """The event, once a handler has been given it."""
        async with asyncio.timeout(SECONDS):
            while True:
                for event in self.events:
                    if getattr(event, "event_id", None) == event_id:
                        return event
                self._news.clear()
                await self._news.wait()


@pytest_asyncio.fixture
async def bot(server: WholeServer) -> AsyncIterator[Bot]:
    async with Person(server.url, "mau") as account:
        await account.register(PASSWORD)
    client = Client(base_url=server.url, sync_store=MemorySyncStore(), state_store=MemoryStateStore())
    try:
        flows = await client.get_login_flows()
        assert any(str(flow.type) == "m.login.password" for flow in flows.flows)
        answer = await client.login(account.user_id, password=PASSWORD, device_name="a bot")
        assert answer.user_id == (await client.whoami()).user_id == f"@mau:{SERVER_NAME}"
        client.start(None)
        yield Bot(client)
        client.stop()
        await client.logout()
    finally:
        await client.api.session.close()


async def test_a_bot_holds_a_conversation_and_reads_the_room(server: WholeServer, bot: Bot) -> None:
    client = bot.client
    async with Person(server.url, "dora") as dora:
        await dora.register(PASSWORD)
        dora.listen()
        room_id = await client.create_room(
            alias_localpart="pond",
            preset=RoomCreatePreset.PRIVATE,
            name="Pond",
            topic="still water",
            invitees=[dora.user_id],
        )
        await dora.join(room_id)

        sent = [await client.send_text(room_id, text) for text in ("first", "ünïcödé 🐘 \0")]
        await dora.until_seen(room_id, sent[-1])
        seen = {event["event_id"]: event for event in dora.timelines[room_id]}
        assert [seen[event_id]["content"]["body"] for event_id in sent] == ["first", "ünïcödé 🐘 \0"]

        answered = await dora.send(room_id, "an answer")
        event = await bot.until(answered)
        assert (event.sender, event.content.msgtype, event.content.body) == (
            dora.user_id,
            MessageType.TEXT,
            "an answer",
        )

        content = TextMessageEventContent(msgtype=MessageType.TEXT, body="second thoughts")
        content.set_edit(sent[0])
        edit = await client.send_message(room_id, content)
        reaction = await client.react(room_id, answered, "👍")
        redaction = await client.redact(room_id, sent[1], reason="regret")
        await dora.until_seen(room_id, redaction)
        assert edit in dora.seen[room_id]
        assert reaction in dora.seen[room_id]

        # What the client's own models make of what the server answers.
        assert (await client.resolve_room_alias(f"#pond:{SERVER_NAME}")).room_id == room_id
        assert room_id in await client.get_joined_rooms()
        assert set(await client.get_joined_members(room_id)) == {client.mxid, dora.user_id}
        members = await client.get_members(room_id, membership=Membership.JOIN)
        assert {str(member.state_key) for member in members} == {client.mxid, dora.user_id}
        assert (await client.get_state_event(room_id, EventType.ROOM_NAME)).name == "Pond"
        assert (await client.get_event(room_id, answered)).content.body == "an answer"
        page = await client.get_messages(room_id, PaginationDirection.BACKWARD, limit=50)
        told = [one.event_id for one in page.events]
        assert told.index(redaction) < told.index(edit) < told.index(answered) < told.index(sent[0])
        around = await client.get_event_context(room_id, answered, limit=4)
        assert around.event.event_id == answered
        await client.set_room_directory_visibility(room_id, RoomDirectoryVisibility.PUBLIC)
        assert room_id in [room.room_id for room in (await client.get_room_directory()).chunk]

        await client.set_displayname("Mau")
        assert await client.get_displayname(client.mxid) == "Mau"
        await client.set_typing(room_id, timeout=5000)
        await client.set_fully_read_marker(room_id, answered, answered)
        await client.set_account_data("org.example.data", {"a": [1]})
        assert await client.get_account_data("org.example.data") == {"a": [1]}
        with pytest.raises(MNotFound):
            await client.get_state_event(room_id, EventType.find("org.example.none", t_class=EventType.Class.STATE))

        await client.kick_user(room_id, dora.user_id, reason="that is enough")
        with pytest.raises(MForbidden):
            await client.kick_user(room_id, client.mxid[:-1])
        await client.leave_room(room_id)
        await client.forget_room(room_id)
        assert bot.failures == []
