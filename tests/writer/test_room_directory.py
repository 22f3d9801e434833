import itertools
from typing import Any

import pytest
from api_server import Api, Client, part

_numbers = itertools.count(1)


def _alias() -> str:
    return f"#directory{next(_numbers)}:test.example"


async def test_an_alias_is_made_found_listed_and_removed(api: Api) -> None:
    alice = await api.register()
    room_id, alias = await alice.create_room(), _alias()
    path = f"directory/room/{part(alias)}"
    assert (await api.anybody.get(path)).refusal == (404, "M_NOT_FOUND")
    assert (await alice.put(path, {"room_id": room_id})).ok() == {}
    assert (await api.anybody.get(path)).ok() == {"room_id": room_id, "servers": ["test.example"]}
    assert (await alice.get(f"rooms/{room_id}/aliases")).ok() == {"aliases": [alias]}
    assert (await alice.put(path, {"room_id": room_id})).refusal == (409, "M_UNKNOWN")
    assert (await alice.delete(path)).ok() == {}
    assert (await api.anybody.get(path)).refusal == (404, "M_NOT_FOUND")
    assert (await alice.delete(path)).refusal == (404, "M_NOT_FOUND")


async def test_an_alias_is_removed_by_its_maker_or_who_may_name_the_room(api: Api) -> None:
    alice, bob, carol = [await api.register() for _ in range(3)]
    room_id = await alice.create_room(preset="public_chat")
    for user in (bob, carol):
        (await user.post(f"join/{room_id}", {})).ok()
    for remover, refused in ((carol, True), (bob, False), (alice, False)):
        path = f"directory/room/{part(_alias())}"
        (await bob.put(path, {"room_id": room_id})).ok()
        answer = await remover.delete(path)
        assert answer.refusal == ((403, "M_FORBIDDEN") if refused else (200, None))


async def test_an_alias_is_made_by_members_alone(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room()
    path = f"directory/room/{part(_alias())}"
    assert (await bob.put(path, {"room_id": room_id})).refusal == (403, "M_FORBIDDEN")
    assert (await bob.put(path, {"room_id": "!nowhere:test.example"})).refusal == (404, "M_NOT_FOUND")
    assert (await bob.get(f"rooms/{room_id}/aliases")).refusal == (403, "M_FORBIDDEN")
    assert (await bob.get("rooms/!nowhere:test.example/aliases")).refusal == (403, "M_FORBIDDEN")


async def test_a_room_has_a_bounded_number_of_aliases(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("writer.aliases.MOST_ALIASES", 2)
    alice = await api.register()
    room_id, other = await alice.create_room(), await alice.create_room()
    for _ in range(2):
        (await alice.put(f"directory/room/{part(_alias())}", {"room_id": room_id})).ok()
    path = f"directory/room/{part(_alias())}"
    assert (await alice.put(path, {"room_id": room_id})).refusal == (413, "M_TOO_LARGE")
    (await alice.put(path, {"room_id": other})).ok()


async def test_the_aliases_of_a_world_readable_room_are_everybodys(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    visibility = {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}
    room_id = await alice.create_room(initial_state=[visibility])
    assert (await bob.get(f"rooms/{room_id}/aliases")).ok() == {"aliases": []}


@pytest.mark.parametrize(
    ("alias", "body", "refusal"),
    [
        ("nonsense", {"room_id": "!r:test.example"}, (400, "M_INVALID_PARAM")),
        ("#x:elsewhere.example", {"room_id": "!r:test.example"}, (400, "M_INVALID_PARAM")),
        ("#nul\0:test.example", {"room_id": "!r:test.example"}, (400, "M_INVALID_PARAM")),
        ("#x:test.example", {}, (400, "M_MISSING_PARAM")),
        ("#x:test.example", {"room_id": 5}, (400, "M_BAD_JSON")),
        ("#x:test.example", {"room_id": "nonsense"}, (400, "M_INVALID_PARAM")),
    ],
)
async def test_an_alias_that_cannot_be_is_refused(api: Api, alias: str, body: Any, refusal: tuple[int, str]) -> None:
    alice = await api.register()
    assert (await alice.put(f"directory/room/{part(alias)}", body)).refusal == refusal


async def test_aliases_elsewhere_are_not_found(api: Api) -> None:
    assert (await api.anybody.get(f"directory/room/{part('#x:elsewhere.example')}")).refusal == (404, "M_NOT_FOUND")
    assert (await api.anybody.get("directory/room/nonsense")).refusal == (400, "M_INVALID_PARAM")


async def test_a_room_is_published_by_who_may_name_it(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{room_id}", {})).ok()
    path = f"directory/list/room/{room_id}"
    assert (await api.anybody.get(path)).ok() == {"visibility": "private"}
    assert (await bob.put(path, {"visibility": "public"})).refusal == (403, "M_FORBIDDEN")
    for _ in range(2):
        assert (await alice.put(path, {})).ok() == {}
    assert (await api.anybody.get(path)).ok() == {"visibility": "public"}
    assert (await alice.put(path, {"visibility": "private"})).ok() == {}
    assert (await api.anybody.get(path)).ok() == {"visibility": "private"}
    assert (await alice.put(path, {"visibility": "hidden"})).refusal == (400, "M_INVALID_PARAM")
    assert (await alice.put(path, {"visibility": 1})).refusal == (400, "M_BAD_JSON")
    assert (await api.anybody.get("directory/list/room/!nowhere:test.example")).refusal == (404, "M_NOT_FOUND")
    assert (await api.anybody.get("directory/list/room/nonsense")).refusal == (400, "M_INVALID_PARAM")


async def _published(api: Api, word: str, count: int) -> tuple[Client, list[str]]:
    alice = await api.register()
    return alice, [await alice.create_room(visibility="public", name=f"{word} {n}") for n in range(count)]


async def _search(user: Client, word: str, **body: Any) -> dict[str, Any]:
    return (await user.post("publicRooms", {"filter": {"generic_search_term": word}, **body})).ok()


async def test_a_published_room_is_described(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room(
        visibility="public",
        name="Described \0",
        topic="The topic",
        room_alias_name="described",
        creation_content={"type": "m.space"},
        initial_state=[
            {"type": "m.room.avatar", "content": {"url": "mxc://a/b"}},
            {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}},
        ],
    )
    found = await _search(alice, "described")
    assert found["chunk"] == [
        {
            "room_id": room_id,
            "num_joined_members": 1,
            "name": "Described \0",
            "topic": "The topic",
            "canonical_alias": "#described:test.example",
            "avatar_url": "mxc://a/b",
            "join_rule": "public",
            "world_readable": True,
            "guest_can_join": False,
            "room_type": "m.space",
        }
    ]
    assert found["total_room_count_estimate"] >= 1


async def test_the_largest_room_comes_first_and_pages_lead_there_and_back(api: Api) -> None:
    alice, rooms = await _published(api, "paged", 5)
    bob = await api.register()
    (await bob.post(f"join/{rooms[3]}", {})).ok()
    whole = [room["room_id"] for room in (await _search(alice, "PAGED"))["chunk"]]
    assert whole[0] == rooms[3] and set(whole) == set(rooms)
    first = await _search(alice, "paged", limit=2)
    assert "prev_batch" not in first
    second = await _search(alice, "paged", limit=2, since=first["next_batch"])
    third = await _search(alice, "paged", limit=2, since=second["next_batch"])
    assert [room["room_id"] for page in (first, second, third) for room in page["chunk"]] == whole
    assert "next_batch" not in third
    back = await _search(alice, "paged", limit=2, since=third["prev_batch"])
    assert back["chunk"] == second["chunk"]
    assert (await _search(alice, "paged", limit=2, since=back["prev_batch"]))["chunk"] == first["chunk"]


async def test_the_list_can_be_asked_for_types_of_rooms(api: Api) -> None:
    alice = await api.register()
    space = await alice.create_room(visibility="public", name="typed", creation_content={"type": "m.space"})
    plain = await alice.create_room(visibility="public", name="typed")
    for wanted, expected in (
        ([None], {plain}),
        (["m.space"], {space}),
        (["m.space", None], {plain, space}),
        ([], set()),
    ):
        body = {"filter": {"generic_search_term": "typed", "room_types": wanted}}
        found = (await alice.post("publicRooms", body)).ok()
        assert {room["room_id"] for room in found["chunk"]} == expected


async def test_the_list_is_everybodys_and_pages_without_a_filter(api: Api) -> None:
    await _published(api, "anybodys", 3)
    seen: list[str] = []
    query = ""
    while True:
        page = (await api.anybody.get(f"publicRooms?limit=2{query}")).ok()
        assert len(page["chunk"]) <= 2
        seen += [room["room_id"] for room in page["chunk"]]
        if "next_batch" not in page:
            break
        query = f"&since={page['next_batch']}"
    assert len(seen) == len(set(seen)) == page["total_room_count_estimate"]


async def test_a_room_that_is_not_published_any_more_is_not_listed(api: Api) -> None:
    alice, rooms = await _published(api, "withdrawn", 1)
    (await alice.put(f"directory/list/room/{rooms[0]}", {"visibility": "private"})).ok()
    assert (await _search(alice, "withdrawn"))["chunk"] == []


@pytest.mark.parametrize(
    ("method", "query", "body", "refusal"),
    [
        ("GET", "?limit=0", None, (400, "M_INVALID_PARAM")),
        ("GET", "?limit=-1", None, (400, "M_INVALID_PARAM")),
        ("GET", "?limit=many", None, (400, "M_INVALID_PARAM")),
        ("GET", "?since=nonsense", None, (400, "M_INVALID_PARAM")),
        ("GET", "?since=%F0%9F%A6%8A", None, (400, "M_INVALID_PARAM")),
        ("GET", "?server=elsewhere.example", None, (404, "M_NOT_FOUND")),
        ("POST", "", {"limit": 0}, (400, "M_INVALID_PARAM")),
        ("POST", "", {"limit": "2"}, (400, "M_BAD_JSON")),
        ("POST", "", {"since": 5}, (400, "M_BAD_JSON")),
        ("POST", "", {"filter": []}, (400, "M_BAD_JSON")),
        ("POST", "", {"filter": {"generic_search_term": 1}}, (400, "M_BAD_JSON")),
        ("POST", "", {"filter": {"room_types": "m.space"}}, (400, "M_BAD_JSON")),
        ("POST", "", {"filter": {"room_types": [5]}}, (400, "M_BAD_JSON")),
        ("POST", "", [], (400, "M_BAD_JSON")),
    ],
)
async def test_a_page_that_cannot_be_is_refused(
    api: Api, method: str, query: str, body: Any, refusal: tuple[int, str]
) -> None:
    alice = await api.register()
    assert (await alice.call(method, f"publicRooms{query}", body)).refusal == refusal
    assert (await api.anybody.post("publicRooms", {})).refusal == (401, "M_MISSING_TOKEN")


async def test_no_room_is_of_a_third_party_network(api: Api) -> None:
    alice = await api.register()
    await alice.create_room(visibility="public")
    everything = (await alice.post("publicRooms", {"include_all_networks": True})).ok()
    assert everything["chunk"]
    assert (await alice.post("publicRooms", {"third_party_instance_id": "irc"})).ok()["chunk"] == []
    both = {"include_all_networks": True, "third_party_instance_id": "irc"}
    assert (await alice.post("publicRooms", both)).refusal == (400, "M_INVALID_PARAM")
    assert (await alice.post("publicRooms", {"include_all_networks": "yes"})).refusal == (400, "M_BAD_JSON")
