"""Keys of devices: uploaded, asked for, claimed once; cross-signing and signatures."""

import asyncio
from typing import Any

import psycopg
import pytest
from api_server import Api, Client, Json, eventually, part

from matrix.signatures import SigningKey, sign_json
from readers import maintenance
from writer.claims import Claims
from writer.key_directory import KeyDirectory

ALGORITHM = "signed_curve25519"


def device_keys(client: Client, key: SigningKey, **more: Any) -> Json:
    """Identity keys, signed by themselves."""
    keys = {
        "user_id": client.user_id,
        "device_id": client.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            f"ed25519:{client.device_id}": key.verify_key_base64,
            f"curve25519:{client.device_id}": key.verify_key_base64,
        },
        **more,
    }
    return sign_json(keys, client.user_id, named(key, client.device_id))


def named(key: SigningKey, name: str) -> SigningKey:
    """The same key by another id."""
    return SigningKey(f"ed25519:{name}", key.seed)


def one_time(count: int, begin: int = 0) -> dict[str, Json]:
    return {f"{ALGORITHM}:K{n}": {"key": f"key {n}", "signatures": {}} for n in range(begin, begin + count)}


class Identity:
    """A user's cross-signing keys."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.master, self.self_signing, self.user_signing = (SigningKey.generate("x") for _ in range(3))

    def key(self, usage: str) -> Json:
        key: SigningKey = getattr(self, usage)
        public = key.verify_key_base64
        value = {"user_id": self.user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}
        return value if usage == "master" else self.sign(value, "master")

    def sign(self, value: Json, usage: str) -> Json:
        key: SigningKey = getattr(self, usage)
        return sign_json(value, self.user_id, named(key, key.verify_key_base64))

    def upload(self) -> Json:
        return {f"{usage}_key": self.key(usage) for usage in ("master", "self_signing", "user_signing")}


async def query(client: Client, *users: str) -> Json:
    return (await client.post("keys/query", {"device_keys": {user: [] for user in users}})).ok()


async def claim(client: Client, other: Client, algorithm: str = ALGORITHM) -> Json:
    wanted = {other.user_id: {other.device_id: algorithm}}
    answer = (await client.post("keys/claim", {"one_time_keys": wanted})).ok()
    assert answer["failures"] == {}
    found: Json = answer["one_time_keys"].get(other.user_id, {}).get(other.device_id, {})
    return found


async def test_identity_keys_are_found_by_others_with_the_name_of_their_device(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    keys = device_keys(alice, SigningKey.generate("x"))
    assert (await alice.post("keys/upload", {"device_keys": keys})).ok() == {"one_time_key_counts": {}}
    assert (await alice.put(f"devices/{alice.device_id}", {"display_name": "Phone"})).ok() == {}
    found = await query(bob, alice.user_id, bob.user_id)
    assert found["device_keys"] == {
        alice.user_id: {alice.device_id: {**keys, "unsigned": {"device_display_name": "Phone"}}},
        bob.user_id: {},
    }
    assert (await query(bob, "@nobody:elsewhere.example"))["failures"].keys() == {"elsewhere.example"}


async def test_keys_go_with_their_device(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    await alice.post(
        "keys/upload", {"device_keys": device_keys(alice, SigningKey.generate("x")), "one_time_keys": one_time(2)}
    )
    await alice.post("logout")

    async def gone() -> bool:
        found: Json = (await query(bob, alice.user_id))["device_keys"]
        return found == {alice.user_id: {}}

    await eventually(gone)
    assert await claim(bob, alice) == {}


async def test_whoever_asks_after_a_device_was_logged_out_does_not_find_it(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    for number in range(12):
        device = await api.login(alice)
        (await device.post("keys/upload", {"device_keys": device_keys(device, SigningKey.generate("x"))})).ok()
        assert device.device_id in (await query(bob, alice.user_id))["device_keys"][alice.user_id]
        (await device.post("logout" if number % 3 else "logout/all")).ok()
        assert (await query(bob, alice.user_id))["device_keys"][alice.user_id] == {}


async def test_keys_that_come_while_their_device_is_logged_out_go_with_it(api: Api) -> None:
    alice = await api.register()
    directory = KeyDirectory(api.process.pool, api.process.log, Claims(api.process.pool))
    gone = Client(api, alice.user_id, "", "GONE")
    # Authenticated before, written afterwards.
    await directory.put_device(alice.user_id, "GONE", device_keys(gone, SigningKey.generate("x")))
    (await alice.post("keys/upload", {"device_keys": device_keys(alice, SigningKey.generate("x"))})).ok()
    assert list((await query(alice, alice.user_id))["device_keys"][alice.user_id]) == [alice.device_id]


async def test_the_next_sync_counts_the_keys_that_were_uploaded(api: Api) -> None:
    alice = await api.register()
    since = (await alice.get("sync")).ok()["next_batch"]
    for number in range(25):
        (await alice.post("keys/upload", {"one_time_keys": one_time(1, number)})).ok()
        body = (await alice.get(f"sync?since={part(since)}")).ok()
        assert body["device_one_time_keys_count"] == {ALGORITHM: number + 1}
        since = body["next_batch"]


async def test_a_device_that_is_found_has_its_one_time_keys(api: Api) -> None:
    bob = await api.register()
    for _ in range(10):
        alice = await api.register()

        async def found(alice: Client = alice) -> Json:
            while not (await query(bob, alice.user_id))["device_keys"][alice.user_id]:
                pass
            return await claim(bob, alice)

        claimed = asyncio.create_task(found())
        upload = {"device_keys": device_keys(alice, SigningKey.generate("x")), "one_time_keys": one_time(50)}
        (await alice.post("keys/upload", upload)).ok()
        async with asyncio.timeout(60):
            assert await claimed, "whoever finds a device begins a session with it at once"


async def test_a_deactivated_account_leaves_no_keys(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    (await alice.post("keys/upload", {"device_keys": device_keys(alice, SigningKey.generate("x"))})).ok()
    (await alice.post("keys/device_signing/upload", Identity(alice.user_id).upload())).ok()
    assert (await query(bob, alice.user_id))["master_keys"]
    identifier = {"type": "m.id.user", "user": alice.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "password": alice.password}
    (await alice.post("account/deactivate", {"auth": auth})).ok()

    async def gone() -> bool:
        found = await query(bob, alice.user_id)
        return (
            found["device_keys"] == {alice.user_id: {}} and not found["master_keys"] and not found["self_signing_keys"]
        )

    await eventually(gone)


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"user_id": "@other:test.example"}, "M_INVALID_PARAM"),
        ({"device_id": "OTHER"}, "M_INVALID_PARAM"),
        ({"algorithms": "none"}, "M_BAD_JSON"),
        ({"keys": {"ed25519:x": 1}}, "M_BAD_JSON"),
        ({"signatures": []}, "M_BAD_JSON"),
        ({"more": 1.5}, "M_BAD_JSON"),
    ],
)
async def test_identity_keys_of_somebody_else_or_of_another_form_are_refused(
    api: Api, change: Json, errcode: str
) -> None:
    alice = await api.register()
    keys = {**device_keys(alice, SigningKey.generate("x")), **change}
    assert (await alice.post("keys/upload", {"device_keys": keys})).refusal == (400, errcode)


async def test_one_time_keys_are_handed_out_in_order_and_once_and_then_the_fallback_key(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    fallback = {f"{ALGORITHM}:F": {"key": "fallback", "fallback": True, "signatures": {}}}
    uploaded = await alice.post("keys/upload", {"one_time_keys": one_time(3), "fallback_keys": fallback})
    assert uploaded.ok() == {"one_time_key_counts": {ALGORITHM: 3}}
    # The same ones again change nothing.
    uploaded = await alice.post("keys/upload", {"one_time_keys": one_time(3), "fallback_keys": fallback})
    assert uploaded.ok() == {"one_time_key_counts": {ALGORITHM: 3}}
    assert [await claim(bob, alice) for _ in range(3)] == [{k: v} for k, v in one_time(3).items()]
    assert [await claim(bob, alice) for _ in range(2)] == [fallback, fallback]
    assert await claim(bob, alice, "another") == {}
    # What was handed out is not taken back.
    uploaded = await alice.post("keys/upload", {"one_time_keys": one_time(4)})
    assert uploaded.ok() == {"one_time_key_counts": {ALGORITHM: 1}}
    assert await claim(bob, alice) == {f"{ALGORITHM}:K3": one_time(4)[f"{ALGORITHM}:K3"]}


async def test_another_one_time_key_under_the_same_id_is_refused(api: Api) -> None:
    alice = await api.register()
    (await alice.post("keys/upload", {"one_time_keys": one_time(1)})).ok()
    other = {f"{ALGORITHM}:K0": {"key": "another", "signatures": {}}}
    assert (await alice.post("keys/upload", {"one_time_keys": other})).refusal == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    "key", [7, {}, {"key": "x"}, {"key": 7, "signatures": {}}, {"key": "x", "signatures": {"@a:b.example": {"k": 1}}}]
)
@pytest.mark.parametrize("keys", ["one_time_keys", "fallback_keys"])
async def test_keys_that_are_objects_without_a_key_or_signatures_are_refused(api: Api, keys: str, key: Any) -> None:
    alice = await api.register()
    answer = await alice.post("keys/upload", {keys: {f"{ALGORITHM}:K": key}})
    assert answer.refusal == (400, "M_BAD_JSON")


async def test_keys_have_bounds(api: Api) -> None:
    alice = await api.register()
    assert (await alice.post("keys/upload", {"one_time_keys": one_time(1001)})).refusal == (413, "M_TOO_LARGE")
    (await alice.post("keys/upload", {"one_time_keys": one_time(1000)})).ok()
    more = await alice.post("keys/upload", {"one_time_keys": one_time(1, 1000)})
    assert more.refusal == (413, "M_TOO_LARGE")
    large = {f"{ALGORITHM}:L": "x" * 9000}
    assert (await alice.post("keys/upload", {"one_time_keys": large})).refusal == (413, "M_TOO_LARGE")


async def test_many_who_claim_at_once_get_different_keys(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    (await alice.post("keys/upload", {"one_time_keys": one_time(60)})).ok()
    answers = await asyncio.gather(*(claim(bob, alice) for _ in range(70)))
    handed = [key_id for answer in answers for key_id in answer]
    assert sorted(handed) == sorted(one_time(60))


async def test_cross_signing_keys_are_published_without_a_password_once_and_replaced_with_it(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    identity = Identity(alice.user_id)
    assert (await alice.post("keys/device_signing/upload", identity.upload())).ok() == {}
    # The same again.
    assert (await alice.post("keys/device_signing/upload", identity.upload())).ok() == {}
    mine, theirs = await query(alice, alice.user_id), await query(bob, alice.user_id)
    for found in (mine, theirs):
        assert found["master_keys"] == {alice.user_id: identity.key("master")}
        assert found["self_signing_keys"] == {alice.user_id: identity.key("self_signing")}
    assert mine["user_signing_keys"] == {alice.user_id: identity.key("user_signing")}
    assert theirs["user_signing_keys"] == {}
    other = Identity(alice.user_id)
    refused = await alice.post("keys/device_signing/upload", other.upload())
    assert refused.status == 401 and refused.body["flows"] == [{"stages": ["m.login.password"]}]
    password = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": alice.user_id}}
    auth = {**password, "password": alice.password, "session": refused.body["session"]}
    assert (await alice.post("keys/device_signing/upload", {**other.upload(), "auth": auth})).ok() == {}
    assert (await query(bob, alice.user_id))["master_keys"] == {alice.user_id: other.key("master")}


async def test_cross_signing_keys_without_the_master_keys_signature_are_refused(api: Api) -> None:
    alice = await api.register()
    identity, other = Identity(alice.user_id), Identity(alice.user_id)

    async def upload(**keys: Json) -> tuple[int, str | None]:
        return (await alice.post("keys/device_signing/upload", keys)).refusal

    assert await upload(self_signing_key=identity.key("self_signing")) == (400, "M_INVALID_PARAM")
    master = identity.key("master")
    assert await upload(master_key=master, self_signing_key=other.key("self_signing")) == (400, "M_INVALID_SIGNATURE")
    assert await upload(master_key={**master, "user_id": "@x:y.example"}) == (400, "M_INVALID_PARAM")
    assert await upload(master_key={**master, "usage": ["self_signing"]}) == (400, "M_INVALID_PARAM")
    assert (await query(alice, alice.user_id))["master_keys"] == {}


@pytest.mark.parametrize(
    "keys",
    [
        {"ed25519:another": SigningKey.generate("x").verify_key_base64},
        {"ed25519:short": "short"},
        {"ed25519:no base64!": "no base64!"},
        {"": ""},
        {"ed25519:": ""},
    ],
)
async def test_a_cross_signing_key_has_itself_as_its_name(api: Api, keys: dict[str, str]) -> None:
    alice = await api.register()
    master = {"user_id": alice.user_id, "usage": ["master"], "keys": keys}
    refused = await alice.post("keys/device_signing/upload", {"master_key": master})
    assert refused.refusal == (400, "M_INVALID_PARAM")
    whole = {**Identity(alice.user_id).key("master"), "version": 1.5}
    assert (await alice.post("keys/device_signing/upload", {"master_key": whole})).refusal == (400, "M_BAD_JSON")
    assert (await query(alice, alice.user_id))["master_keys"] == {}


async def test_signatures_are_seen_by_whom_they_are_for(api: Api) -> None:
    alice, bob, carol = [await api.register() for _ in range(3)]
    key = SigningKey.generate("x")
    keys = device_keys(alice, key)
    (await alice.post("keys/upload", {"device_keys": keys})).ok()
    a, b = Identity(alice.user_id), Identity(bob.user_id)
    (await alice.post("keys/device_signing/upload", a.upload())).ok()
    (await bob.post("keys/device_signing/upload", b.upload())).ok()
    master = sign_json(a.key("master"), alice.user_id, named(key, alice.device_id))
    signed = a.sign(keys, "self_signing")
    public = a.master.verify_key_base64
    uploaded = await alice.post("keys/signatures/upload", {alice.user_id: {alice.device_id: signed, public: master}})
    assert uploaded.ok() == {"failures": {}}
    seen = await query(carol, alice.user_id)
    assert seen["device_keys"][alice.user_id] == {alice.device_id: signed}
    assert seen["master_keys"][alice.user_id] == master
    # The device's own upload keeps what others signed of it.
    (await alice.post("keys/upload", {"device_keys": keys})).ok()
    assert (await query(carol, alice.user_id))["device_keys"][alice.user_id] == {alice.device_id: signed}
    # Bob's signature is for bob alone.
    vouched = b.sign(a.key("master"), "user_signing")
    assert (await bob.post("keys/signatures/upload", {alice.user_id: {public: vouched}})).ok() == {"failures": {}}
    by_bob = (await query(bob, alice.user_id))["master_keys"][alice.user_id]["signatures"]
    assert by_bob == {**master["signatures"], **vouched["signatures"]}
    assert (await query(carol, alice.user_id))["master_keys"][alice.user_id] == master


async def test_signatures_that_are_none_are_named(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    keys = device_keys(alice, SigningKey.generate("x"))
    (await alice.post("keys/upload", {"device_keys": keys})).ok()
    a, other = Identity(alice.user_id), Identity(alice.user_id)
    (await alice.post("keys/device_signing/upload", a.upload())).ok()
    wrong = {
        alice.user_id: {
            alice.device_id: other.sign(keys, "self_signing"),
            "NONE": keys,
            a.master.verify_key_base64: {**a.key("master"), "usage": ["else"]},
        },
        bob.user_id: {"none": {}},
    }
    failures = (await alice.post("keys/signatures/upload", wrong)).ok()["failures"]
    assert {u: {k: f["errcode"] for k, f in of.items()} for u, of in failures.items()} == {
        alice.user_id: {
            alice.device_id: "M_INVALID_SIGNATURE",
            "NONE": "M_NOT_FOUND",
            a.master.verify_key_base64: "M_INVALID_SIGNATURE",
        },
        bob.user_id: {"none": "M_NOT_FOUND"},
    }


async def test_messages_to_devices_are_told_once_and_in_order(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    since = (await bob.get("sync")).ok()["next_batch"]
    for number in range(3):
        messages = {bob.user_id: {bob.device_id: {"n": number}}}
        sent = await alice.put(f"sendToDevice/org.example.test/{number}", {"messages": messages})
        assert sent.ok() == {}
        # The same transaction again sends nothing again.
        assert (await alice.put(f"sendToDevice/org.example.test/{number}", {"messages": messages})).ok() == {}
    told = await everything(bob, since)
    assert told == [
        {"type": "org.example.test", "sender": alice.user_id, "content": {"n": number}} for number in range(3)
    ]


async def test_a_star_is_for_all_devices_there_are_and_no_other(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    second = await api.login(bob)
    messages = {bob.user_id: {"*": {"n": 1}, "NONE": {"n": 2}}}
    (await alice.put("sendToDevice/m.test/1", {"messages": messages})).ok()
    for device in (bob, second):
        assert [event["content"] for event in await everything(device)] == [{"n": 1}]


async def test_a_crowd_of_messages_comes_in_several_responses(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    since = (await bob.get("sync")).ok()["next_batch"]

    async def send(number: int) -> None:
        messages = {bob.user_id: {bob.device_id: {"n": number}}}
        (await alice.put(f"sendToDevice/m.test/{number}", {"messages": messages})).ok()

    await asyncio.gather(*(send(number) for number in range(230)))
    for begin in (since, ""):
        told = await everything(bob, begin)
        assert sorted(event["content"]["n"] for event in told) == list(range(230)) or begin == ""
        if not begin:
            # All of them have arrived by now.
            assert told == []


async def everything(client: Client, since: str = "") -> list[Json]:
    """All messages to a device, in as many responses as they come in; the queue is empty afterwards."""
    told: list[Json] = []
    while True:
        body = (await client.get(f"sync?since={part(since)}" if since else "sync")).ok()
        since, news = body["next_batch"], body.get("to_device", {}).get("events", [])
        assert len(news) <= 100
        if not news:
            break
        told += news

    async def arrived() -> bool:
        return "to_device" not in (await client.get("sync")).ok()

    await eventually(arrived)
    return told


async def test_messages_to_devices_that_are_no_more_are_taken_away_and_no_other(
    api: Api, writers_database: str
) -> None:
    alice, bob = await api.register(), await api.register()
    first = (await bob.get("sync")).ok()["next_batch"]
    # What was addressed before a device went is judged afterwards.
    for number in range(3):
        messages = {bob.user_id: {"GONE": {"n": number}, bob.device_id: {"n": number}}}
        content = {"type": "m.test", "messages": messages}
        await api.process.log.append_entry(type="to_device", user_id=alice.user_id, content=content)
    async with await psycopg.AsyncConnection.connect(writers_database, autocommit=True) as connection:

        async def waiting() -> list[tuple[str, int]]:
            query = (
                "select device_id, count(*) from roomserver.to_device where user_id = %s group by device_id order by 1"
            )
            return await (await connection.execute(query, [bob.user_id])).fetchall()

        assert sorted(await waiting()) == sorted([("GONE", 3), (bob.device_id, 3)])
        await connection.execute("set role walden_maintenance")
        await maintenance._forget_strays(connection)

        async def none_left() -> bool:
            return await waiting() == [(bob.device_id, 3)]

        await eventually(none_left, 60)
    assert [event["content"]["n"] for event in await everything(bob, first)] == [0, 1, 2]
    # A device by that name gets what is sent to it from now on, and nothing that came too late for the former.
    late = {"type": "m.test", "messages": {bob.user_id: {"GONE": {"n": -1}}}}
    await api.process.log.append_entry(type="to_device", user_id=alice.user_id, content=late)
    again = await api.login(bob, device_id="GONE")
    (await alice.put("sendToDevice/m.test/again", {"messages": {bob.user_id: {"GONE": {"n": 3}}}})).ok()
    assert [event["content"]["n"] for event in await everything(again)] == [3]


@pytest.mark.parametrize("body", [{"\0": {}}, {"nobody": {}}, {"@a:test.example": 1}, {"@a\0:test.example": {}}])
async def test_signatures_of_another_form_are_refused(api: Api, body: Json) -> None:
    alice = await api.register()
    assert (await alice.post("keys/signatures/upload", body)).refusal == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"messages": []}, 400),
        ({"messages": {"x": {}}}, 400),
        ({"messages": {"@a:test.example": {"D": 1}}}, 400),
    ],
)
async def test_messages_of_another_form_are_refused(api: Api, body: Json, status: int) -> None:
    alice = await api.register()
    assert (await alice.put("sendToDevice/m.test/1", body)).status == status


async def test_sync_says_how_many_keys_are_left(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    first = (await alice.get("sync")).ok()
    assert first["device_one_time_keys_count"] == {} and first["device_unused_fallback_key_types"] == []
    fallback = {f"{ALGORITHM}:F": {"key": "fallback", "fallback": True, "signatures": {}}}
    (await alice.post("keys/upload", {"one_time_keys": one_time(1), "fallback_keys": fallback})).ok()
    since = first["next_batch"]
    for count, unused in (({ALGORITHM: 1}, [ALGORITHM]), ({}, [ALGORITHM]), ({}, [])):
        # Whoever waits is told; of presence perhaps before.
        said: Any = None
        while said != (count, unused):
            body = (await alice.get(f"sync?timeout=10000&since={part(since)}")).ok()
            said, since = (
                (body["device_one_time_keys_count"], body["device_unused_fallback_key_types"]),
                body["next_batch"],
            )
        idle = (await alice.get(f"sync?since={part(since)}")).ok()
        assert (idle["device_one_time_keys_count"], idle["device_unused_fallback_key_types"]) == (count, unused)
        await claim(bob, alice)


async def test_sync_and_key_changes_say_whose_devices_changed_and_who_left(api: Api) -> None:
    alice, bob, carol = [await api.register() for _ in range(3)]
    room_id = await alice.create_room(preset="public_chat")
    begin = since = (await alice.get("sync")).ok()["next_batch"]

    async def lists() -> tuple[set[str], set[str]]:
        """What the next sync that has any says; others may be of presence."""
        nonlocal since
        before, body = since, {}
        while "device_lists" not in body:
            body = (await alice.get(f"sync?timeout=10000&since={part(since)}")).ok()
            since = body["next_batch"]
        changes = (await alice.get(f"keys/changes?from={part(before)}&to={part(since)}")).ok()
        told = body["device_lists"]
        assert (set(changes["changed"]), set(changes["left"])) == (set(told["changed"]), set(told["left"]))
        return set(told["changed"]), set(told["left"])

    # Who shares no room is nobody's business.
    (await carol.post("keys/upload", {"device_keys": device_keys(carol, SigningKey.generate("x"))})).ok()
    (await bob.post(f"join/{room_id}", {})).ok()
    assert await lists() == ({bob.user_id}, set())
    (await bob.post("keys/upload", {"device_keys": device_keys(bob, SigningKey.generate("x"))})).ok()
    assert await lists() == ({bob.user_id}, set())
    (await bob.post("keys/device_signing/upload", Identity(bob.user_id).upload())).ok()
    assert await lists() == ({bob.user_id}, set())
    (await alice.post("keys/upload", {"device_keys": device_keys(alice, SigningKey.generate("x"))})).ok()
    assert await lists() == ({alice.user_id}, set())
    (await bob.put(f"devices/{bob.device_id}", {"display_name": "Phone"})).ok()
    assert await lists() == ({bob.user_id}, set())
    (await bob.post("logout")).ok()
    assert await lists() == ({bob.user_id}, set())
    theirs = await carol.create_room(preset="public_chat")
    (await alice.post(f"join/{theirs}", {})).ok()
    assert await lists() == ({carol.user_id}, set())
    (await alice.post(f"rooms/{theirs}/leave", {})).ok()
    assert await lists() == (set(), {carol.user_id})
    (await alice.post(f"rooms/{room_id}/kick", {"user_id": bob.user_id})).ok()
    assert await lists() == (set(), {bob.user_id})
    changes = (await alice.get(f"keys/changes?from={part(begin)}&to={part(since)}")).ok()
    assert set(changes["changed"]) == {alice.user_id} and set(changes["left"]) == {bob.user_id, carol.user_id}
    assert (await alice.get("keys/changes?from=nonsense&to=x")).refusal == (400, "M_INVALID_PARAM")
    assert (await alice.get("keys/changes")).refusal == (400, "M_MISSING_PARAM")


DEHYDRATED = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"


async def test_a_dehydrated_device_takes_messages_until_it_is_deleted(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    assert (await alice.get(DEHYDRATED)).refusal == (404, "M_NOT_FOUND")
    dry = Client(api, alice.user_id, "", "DRY")
    body = {
        "device_id": "DRY",
        "device_data": {"algorithm": "org.example"},
        "initial_device_display_name": "Dry",
        "device_keys": device_keys(dry, SigningKey.generate("x"), dehydrated=True),
        "one_time_keys": one_time(1),
    }
    assert (await alice.put(DEHYDRATED, {**body, "device_id": alice.device_id})).refusal == (400, "M_INVALID_PARAM")
    for _ in range(2):
        assert (await alice.put(DEHYDRATED, body)).ok() == {"device_id": "DRY"}
    assert (await alice.get(DEHYDRATED)).ok() == {"device_id": "DRY", "device_data": body["device_data"]}
    found = (await query(bob, alice.user_id))["device_keys"][alice.user_id]
    assert found == {"DRY": {**body["device_keys"], "unsigned": {"device_display_name": "Dry"}}}
    assert await claim(bob, dry) == one_time(1)
    for number in range(3):
        (await bob.put(f"sendToDevice/m.test/{number}", {"messages": {alice.user_id: {"DRY": {"n": number}}}})).ok()
    events = f"{DEHYDRATED}/DRY/events"
    first = (await alice.get(f"{events}?limit=2")).ok()
    rest = (await alice.get(f"{events}?limit=2&from={first['next_batch']}")).ok()
    assert [e["content"]["n"] for e in first["events"] + rest["events"]] == [0, 1, 2] and "next_batch" not in rest
    old = (await alice.post(events, {})).ok()
    assert len(old["events"]) == 3
    assert (await alice.post(events, {"next_batch": old["next_batch"]})).ok()["events"] == []
    assert (await alice.get(f"{events}?from=x")).refusal == (400, "M_INVALID_PARAM")
    assert (await bob.get(events)).refusal == (404, "M_NOT_FOUND")
    assert (await alice.delete(DEHYDRATED)).ok() == {"device_id": "DRY"}
    assert (await alice.delete(DEHYDRATED)).refusal == (404, "M_NOT_FOUND")
    assert (await alice.get(events)).refusal == (404, "M_NOT_FOUND")


async def test_dehydrated_devices_made_at_once_follow_one_another(api: Api) -> None:
    alice = await api.register()

    async def make(number: int) -> tuple[int, str | None]:
        dry = Client(api, alice.user_id, "", f"DRY{number % 3}")
        keys = device_keys(dry, SigningKey.generate("x"), dehydrated=True)
        body = {"device_id": dry.device_id, "device_data": {"algorithm": "org.example"}, "device_keys": keys}
        return (await alice.put(DEHYDRATED, body)).refusal

    assert await asyncio.gather(*(make(number) for number in range(12))) == [(200, None)] * 12
    left = (await alice.get(DEHYDRATED)).ok()["device_id"]
    assert list((await query(alice, alice.user_id))["device_keys"][alice.user_id]) == [left]
    assert {device["device_id"] for device in (await alice.get("devices")).ok()["devices"]} == {alice.device_id, left}
