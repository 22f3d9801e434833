"""mautrix, which bridges and bots are made with, and somebody who answers it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from js_person import JsPerson, opened
from mautrix.client import Client, InternalEventType
from mautrix.client.state_store import MemoryStateStore, MemorySyncStore
from mautrix.crypto.attachments import decrypt_attachment, encrypt_attachment
from mautrix.crypto.store.abstract import StateStore as CryptoStateStore
from mautrix.errors import MForbidden, MNotFound
from mautrix.types import (
    CrossSigningUsage,
    Event,
    EventType,
    MediaMessageEventContent,
    Membership,
    MessageEvent,
    MessageType,
    PaginationDirection,
    RoomCreatePreset,
    RoomDirectoryVisibility,
    RoomID,
    SigningKey,
    TextMessageEventContent,
    TOFUSigningKey,
    TrustState,
    UserID,
)
from people import Person
from PIL import Image
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.clients, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(420)]

PASSWORD = "a fine password"
SECONDS = 60.0


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
        """The event, once a handler has been given it, and decrypted if need be."""
        async with asyncio.timeout(SECONDS):
            while True:
                for event in self.events:
                    if getattr(event, "event_id", None) == event_id and event.type != EventType.ROOM_ENCRYPTED:
                        return event
                self._news.clear()
                await self._news.wait()

    async def until_encrypted(self, room_id: RoomID) -> None:
        """Until it knows how a room encrypts: it asks for that while it takes a key, and does not wait for the key."""
        async with asyncio.timeout(SECONDS):
            while not await self.client.state_store.get_encryption_info(room_id):
                self._news.clear()
                await self._news.wait()


class KnownRooms(MemoryStateStore, CryptoStateStore):
    """What encryption asks of rooms besides."""

    async def find_shared_rooms(self, user_id: UserID) -> list[RoomID]:
        return [room_id for room_id, members in self.members.items() if user_id in members]


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


@contextlib.asynccontextmanager
async def encrypting(server: WholeServer, user_id: str) -> AsyncIterator[Bot]:
    """A further device of a user, with keys of its own."""
    pytest.importorskip("olm", reason="mautrix encrypts with libolm, which has no wheel for this Python")
    from mautrix.crypto import OlmMachine
    from mautrix.crypto.store import MemoryCryptoStore

    class KnownKeys(MemoryCryptoStore):
        async def put_cross_signing_key(self, user_id: UserID, usage: CrossSigningUsage, key: SigningKey) -> None:
            # The one of mautrix 0.21.1 fails when a key is stored again: what it would change is a tuple.
            known = self._cross_signing_keys.setdefault(user_id, {})
            first = known[usage].first if usage in known else key
            known[usage] = TOFUSigningKey(key=key, first=first)

    rooms = KnownRooms()
    client = Client(base_url=server.url, sync_store=MemorySyncStore(), state_store=rooms)
    bot = Bot(client)
    try:
        await client.login(user_id, password=PASSWORD)
        client.crypto = OlmMachine(client, KnownKeys("bot", "pickled"), rooms)
        await client.crypto.load()
        await client.crypto.share_keys()
        client.start(None)
        yield bot
        assert bot.failures == []
    finally:
        client.stop()
        await client.api.session.close()


async def test_a_bot_and_matrix_js_sdk_encrypt_trust_by_cross_signing_and_show_images(
    server: WholeServer, tmp_path: Path
) -> None:
    async with Person(server.url, "emma") as account:
        await account.register(PASSWORD)
    emma_id = account.user_id
    async with (
        encrypting(server, emma_id) as emma,
        encrypting(server, emma_id) as emma_too,
        JsPerson(tmp_path / "jay.log") as jay,
    ):
        key = await emma.client.crypto.generate_recovery_key()
        await emma_too.client.crypto.verify_with_recovery_key(key)
        jay_id = await jay.do("register", baseUrl=server.url, username="jay", password=PASSWORD, encrypts=True)
        await jay.do("bootstrap")
        sealed = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
        options = {"invite": [emma_id], "preset": "private_chat", "initial_state": [sealed]}
        room_id = await jay.do("createRoom", options=options)
        await emma.client.join_room(room_id)
        await jay.until(room_id, lambda seen: seen["members"].get(emma_id, {}).get("membership") == "join")

        # All three devices read what each of them says.
        for bot in (emma, emma_too):
            await bot.until_encrypted(room_id)
        sent = await jay.do("send", roomId=room_id, text="from jay")
        for bot in (emma, emma_too):
            assert (await bot.until(sent)).content.body == "from jay"
        for bot, other, text in ((emma, emma_too, "from emma"), (emma_too, emma, "from her second")):
            sent = await bot.client.send_text(room_id, text)
            assert (await other.until(sent)).content.body == text
            await jay.until(room_id, lambda seen, text=text: text in opened(seen))

        # Each side sees that the other's devices are signed by their owner.
        for bot in (emma, emma_too):
            device_id = bot.client.device_id
            await jay.until_told("trust", lambda told: told["signed"], userId=emma_id, deviceId=device_id)
            theirs = await bot.client.crypto.crypto_store.get_device(jay_id, await jay.do("whoAmI"))
            assert await bot.client.crypto.resolve_trust(theirs) == TrustState.CROSS_SIGNED_TOFU

        # An image each way.
        image = png((90, 60))
        encrypted, file = encrypt_attachment(image)
        file.url = await emma.client.upload_media(encrypted, mime_type="application/octet-stream")
        content = MediaMessageEventContent(msgtype=MessageType.IMAGE, body="a cat.png", file=file)
        sent = await emma.client.send_message(room_id, content)
        await jay.until(room_id, lambda seen: "a cat.png" in opened(seen))
        assert base64.b64decode(await jay.do("fetchImage", roomId=room_id, eventId=sent)) == image
        image, small = png((300, 200)), base64.b64encode(png((30, 20))).decode()
        sending = {"name": "a dog.png", "image": base64.b64encode(image).decode(), "thumbnail": small}
        event = await emma.until(await jay.do("sendImage", roomId=room_id, plain=False, **sending))
        file = event.content.file
        got = await emma.client.download_media(file.url)
        assert decrypt_attachment(got, file.key.key, file.hashes["sha256"], file.iv) == image


def png(size: tuple[int, int]) -> bytes:
    data = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(data, "PNG")
    return data.getvalue()
