"""GET /messages: order, tokens, bounds, filters, and what nobody may see."""

from __future__ import annotations

import pytest
from judged_rooms import Log, Room, bodies
from rooms_client import V1, V3, Client, serving

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = "@alice:test.example", "@bob:test.example", "@eve:test.example"


def messages(room: Room) -> str:
    return f"{V3}/rooms/{room.room_id}/messages"


async def every_page(client: Client, room: Room, direction: str, **parameters: object) -> list[str]:
    """The event ids of all pages, each asked for with the `end` of the one before."""
    found: list[str] = []
    page = await client.get(messages(room), dir=direction, **parameters)
    while True:
        found += [event["event_id"] for event in page["chunk"]]
        if "end" not in page:
            return found
        page = await client.get(messages(room), dir=direction, from_=page["end"], **parameters)


async def test_pages_in_both_directions_hold_every_event_once_and_in_order(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        other = Room(log, ALICE)
        for number in range(23):
            room.message(ALICE, f"{number}")
            other.message(ALICE, "elsewhere")
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        backwards = await every_page(alice, room, "b", limit=5)
        forwards = await every_page(alice, room, "f", limit=4)
    assert len(backwards) == 27
    assert backwards == forwards[::-1]
    assert len(set(forwards)) == 27
    assert forwards[0] == room.create.event_id


async def test_a_page_of_large_events_is_cut_short_and_goes_on_where_it_ended(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        small = [room.message(ALICE, "small") for _ in range(60)]
        large = [room.message(ALICE, "x" * 60_000) for _ in range(140)]
        related = [room.relate(ALICE, small[0], "m.annotation", key="x" * 60_000) for _ in range(90)]
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        page = await alice.get(messages(room), dir="b", limit=1000)
        assert sum(len(str(event)) for event in page["chunk"]) < 12 << 20
        forwards = await every_page(alice, room, "f", limit=1000)
        assert forwards == (await every_page(alice, room, "b", limit=1000))[::-1]
        assert forwards[-290:] == [sent.event_id for sent in (*small, *large, *related)]
        relations = f"{V1}/rooms/{room.room_id}/relations/{small[0].event_id}"
        page = await alice.get(relations, limit=1000)
        first = len(page["chunk"])
        page = await alice.get(relations, limit=1000, from_=page["next_batch"])
        assert 50 < first < 90 and page["chunk"][0]["event_id"] == related[-1 - first].event_id


async def test_limit_is_ten_by_default_and_must_be_positive(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.messages([ALICE], 20)
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        assert len((await alice.get(messages(room), dir="b"))["chunk"]) == 10
        assert len((await alice.get(messages(room), dir="b", limit="5000"))["chunk"]) == 24
        assert await alice.refusal(messages(room), dir="b", limit="0") == (400, "M_INVALID_PARAM")
        assert await alice.refusal(messages(room), dir="b", limit="ten") == (400, "M_INVALID_PARAM")


async def test_from_and_to_take_the_tokens_of_sync_and_of_pages(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        sent = [room.message(ALICE, f"{number}") for number in range(10)]
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        sync_token = f"w1_e1_{sent[6].position}"
        page = await alice.get(messages(room), dir="b", from_=sync_token, limit=3)
        assert bodies(page["chunk"]) == ["6", "5", "4"]
        assert page["start"] == sync_token
        page = await alice.get(messages(room), dir="b", from_=sync_token, to=f"t{sent[3].position}", limit=9)
        assert bodies(page["chunk"]) == ["6", "5", "4"]
        assert "end" not in page
        page = await alice.get(messages(room), dir="f", from_=f"t{sent[3].position}", to=sync_token, limit=9)
        assert bodies(page["chunk"]) == ["4", "5", "6"]
        page = await alice.get(messages(room), dir="f", from_=f"t{sent[7].position}", limit=9)
        assert bodies(page["chunk"]) == ["8", "9"]
        assert "end" not in page


@pytest.mark.parametrize("token", ["", "t", "t01", "s12_3", "w1_e1_", "w2_e1_4", "t9999999999999999999"])
async def test_a_token_that_was_never_given_out_is_refused(database: str, token: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        log.commit()
    async with serving(database) as server:
        refusal = await server.client(ALICE).refusal(messages(room), dir="b", from_=token)
    assert refusal == (400, "M_INVALID_PARAM")


async def test_a_token_of_an_epoch_that_nothing_remembers_is_the_present(database: str) -> None:
    """Restored onto another machine, which has not seen the epochs of the lost time."""
    with Log(database) as log:
        room = Room(log, ALICE)
        room.message(ALICE, "last")
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        page = await alice.get(messages(room), dir="b", limit=1, from_="w1_nobodys_4")
        assert bodies(page["chunk"]) == ["last"]
        page = await alice.get(messages(room), dir="f", from_="w1_nobodys_4")
        assert page["chunk"] == [] and "end" not in page
        known = await alice.get(f"{V3}/rooms/{room.room_id}/members", at="w1_nobodys_4")
        assert [member["state_key"] for member in known["chunk"]] == [ALICE]


async def test_a_token_of_an_abandoned_future_counts_from_where_history_parted(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        before = room.message(ALICE, "before")
        log.commit()
        log.connection.execute(
            "insert into eventlog.epochs (epoch, parent, forked_at, system_identifier, timeline, reason)"
            " values ('e2', 'e1', %s, '1', 2, 'recover')",
            [[before.position]],
        )
        log.connection.execute("update eventlog.positions set epoch = 'e2'")
        room.message(ALICE, "after")
        log.commit()
    async with serving(database) as server:
        page = await server.client(ALICE).get(messages(room), dir="f", from_=f"w1_e1_{before.position + 500}")
    assert bodies(page["chunk"]) == ["after"]


async def test_dir_is_required(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        assert await alice.refusal(messages(room)) == (400, "M_MISSING_PARAM")
        assert await server.client("@nobody:here").refusal(messages(room)) == (403, "M_FORBIDDEN")
        assert await alice.refusal(messages(room), dir="x") == (400, "M_INVALID_PARAM")


async def test_refused_events_are_not_shown(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        for verdict in "asrtoqa":
            room.send(ALICE, "m.room.message", {"msgtype": "m.text", "body": verdict}, verdict=verdict)
        log.commit()
    async with serving(database) as server:
        page = await server.client(ALICE).get(messages(room), dir="f", limit=50)
    assert bodies(page["chunk"]) == ["a", "a"]


async def test_a_redacted_message_is_pruned_and_says_why(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        target = room.message(ALICE, "regretted")
        kept = room.message(ALICE, "kept")
        log.commit()
        async with serving(database) as server:
            alice = server.client(ALICE)
            assert bodies((await alice.get(messages(room), dir="b", limit=2))["chunk"]) == ["kept", "regretted"]
            redaction = room.redact(ALICE, target)
            log.commit()
            page = await alice.get(messages(room), dir="b", limit=3)
    shown = {event["event_id"]: event for event in page["chunk"]}
    pruned = shown[target.event_id]
    assert pruned["content"] == {}
    because = pruned["unsigned"]["redacted_because"]
    assert because["event_id"] == redaction.event_id
    assert because["content"]["reason"] == "spam"
    assert because["redacts"] == target.event_id
    assert shown[kept.event_id]["content"]["body"] == "kept"


async def test_the_reason_of_a_redaction_can_be_redacted_too(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        target = room.message(ALICE, "slander")
        redaction = room.redact(ALICE, target, "it said: slander")
        log.commit()
        async with serving(database) as server:
            alice = server.client(ALICE)
            assert "slander" in str(await alice.get(messages(room), dir="b", limit=2))
            room.redact(ALICE, redaction)
            log.commit()
            assert "slander" not in str(await alice.get(messages(room), dir="b", limit=3))


async def test_a_message_stays_redacted_when_the_log_has_lost_the_redaction(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        target = room.message(ALICE, "regretted")
        log.add(
            "redactions",
            target=target.event_id,
            redaction="$dropped",
            entry=log.next_entry(),
            room=room.nid,
            position=log.position,
        )
        log.commit()
    async with serving(database) as server:
        page = await server.client(ALICE).get(messages(room), dir="b", limit=1)
    assert page["chunk"][0]["content"] == {}


async def test_what_was_redacted_is_not_shown_as_the_content_before_either(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        slander = room.send(ALICE, "m.room.topic", {"topic": "slander"}, state_key="")
        room.send(ALICE, "m.room.topic", {"topic": "roses"}, state_key="")
        log.commit()
        async with serving(database) as server:
            alice = server.client(ALICE)
            page = await alice.get(messages(room), dir="b", limit=1)
            assert page["chunk"][0]["unsigned"]["prev_content"] == {"topic": "slander"}
            room.redact(ALICE, slander)
            log.commit()
            page = await alice.get(messages(room), dir="b", limit=2)
    unsigned = page["chunk"][1]["unsigned"]
    assert "prev_content" not in unsigned
    assert unsigned["replaces_state"] == slander.event_id


async def test_the_transaction_id_is_for_the_device_that_sent(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join")
        room.send(ALICE, "m.room.message", {"body": "x", "msgtype": "m.text"}, device_id="PHONE", txn_id="7\U0010ffff0")
        log.commit()
    async with serving(database) as server:

        async def unsigned(client: Client) -> dict[str, str]:
            found: dict[str, str] = (await client.get(messages(room), dir="b", limit=1))["chunk"][0]["unsigned"]
            return found

        assert (await unsigned(server.client(ALICE, "PHONE")))["transaction_id"] == "7\0"
        assert await unsigned(server.client(ALICE, "LAPTOP")) == {"membership": "join"}
        assert await unsigned(server.client(BOB, "PHONE")) == {"membership": "join"}


async def test_a_filter_chooses_types_senders_and_urls(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join")
        room.message(ALICE, "hers")
        room.message(BOB, "his")
        room.message(BOB, "picture", url="mxc://test.example/a")
        room.send(ALICE, "org.example.100%_sure", {})
        room.send(ALICE, "org.example.100__sure", {})
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)

        async def chosen(**wanted: object) -> list[str]:
            page = await alice.get(messages(room), dir="f", limit=50, filter=wanted)
            return [event["content"].get("body", event["type"]) for event in page["chunk"]]

        assert await chosen(types=["m.room.message"]) == ["hers", "his", "picture"]
        assert await chosen(types=["m.room.mes*"], not_senders=[BOB]) == ["hers"]
        assert await chosen(senders=[BOB], not_types=["m.room.member"]) == ["his", "picture"]
        assert await chosen(senders=["@nul\0:test.example"]) == []
        assert await chosen(types=["m.room.message"], not_senders=["@nul\0:test.example", BOB]) == ["hers"]
        assert await chosen(contains_url=True) == ["picture"]
        assert await chosen(types=["m.room.message"], contains_url=False) == ["hers", "his"]
        # Asked once more, there is nothing.
        page = await alice.get(messages(room), dir="b", filter={"contains_url": True})
        assert [event["content"]["body"] for event in page["chunk"]] == ["picture"]
        page = await alice.get(messages(room), dir="b", filter={"contains_url": True}, from_=page["end"])
        assert page["chunk"] == [] and "end" not in page
        assert await chosen(types=["org.example.100%*"]) == ["org.example.100%_sure"]
        assert await chosen(types=[]) == []
        assert await chosen(rooms=["!other:test.example"]) == []
        assert await chosen(not_rooms=[room.room_id]) == []
        refusal = await alice.refusal(messages(room), dir="f", filter={"types": "m.room.message"})
        assert refusal == (400, "M_BAD_JSON")
        assert await alice.refusal(messages(room), dir="f", filter="{") == (400, "M_NOT_JSON")


async def test_a_sparse_filter_pages_through_a_long_room(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        wanted = []
        for number in range(3):
            room.messages([ALICE], 1200)
            wanted.append(room.send(ALICE, "m.room.name", {"name": f"{number}"}, state_key="").event_id)
        log.commit()
    async with serving(database) as server:
        found = await every_page(server.client(ALICE), room, "b", limit=10, filter={"types": ["m.room.name"]})
    assert found == wanted[::-1]


async def test_lazy_loading_brings_the_members_who_speak(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join", displayname="Bob")
        room.member(EVE, "join", displayname="Eve")
        room.message(BOB, "hello")
        room.message(ALICE, "hello Bob")
        log.commit()
    async with serving(database) as server:
        page = await server.client(ALICE).get(
            messages(room), dir="b", limit=2, filter={"lazy_load_members": True, "include_redundant_members": True}
        )
    assert {event["state_key"] for event in page["state"]} == {ALICE, BOB}
    assert all(event["type"] == "m.room.member" and event["room_id"] == room.room_id for event in page["state"])


async def test_strangers_are_refused_and_learn_nothing_of_which_rooms_there_are(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "invite", by=ALICE)
        log.commit()
    async with serving(database) as server:
        assert await server.client(EVE).refusal(messages(room), dir="b") == (403, "M_FORBIDDEN")
        assert await server.client(BOB).refusal(messages(room), dir="b") == (403, "M_FORBIDDEN")
        nowhere = f"{V3}/rooms/!nowhere:test.example/messages"
        assert await server.client(EVE).refusal(nowhere, dir="b") == (403, "M_FORBIDDEN")


async def test_ignored_users_are_heard_in_state_alone(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join")
        room.message(BOB, "spam")
        room.message(ALICE, "news")
        log.account_data(ALICE, "m.ignored_user_list", {"ignored_users": {BOB: {}}})
        log.commit()
    async with serving(database) as server:
        page = await server.client(ALICE).get(messages(room), dir="f", limit=50)
    assert bodies(page["chunk"]) == ["news"]
    assert BOB in [event.get("state_key") for event in page["chunk"]]
