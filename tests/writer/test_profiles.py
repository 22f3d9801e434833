import asyncio
from typing import Any

import pytest
from api_server import Api, part


async def test_a_name_and_an_avatar_are_set_and_read_by_anybody(api: Api) -> None:
    alice = await api.register()
    path = f"profile/{alice.user_id}"
    assert (await api.anybody.get(path)).ok() == {}
    assert (await api.anybody.get(f"{path}/displayname")).refusal == (404, "M_NOT_FOUND")
    (await alice.put(f"{path}/displayname", {"displayname": "Alice \0"})).ok()
    (await alice.put(f"{path}/avatar_url", {"avatar_url": "mxc://test.example/a"})).ok()
    assert (await api.anybody.get(path)).ok() == {"displayname": "Alice \0", "avatar_url": "mxc://test.example/a"}
    assert (await api.anybody.get(f"{path}/displayname")).ok() == {"displayname": "Alice \0"}


async def test_a_name_follows_into_the_rooms_one_is_joined_to(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    rooms = [await alice.create_room(preset="public_chat") for _ in range(3)]
    await asyncio.gather(*(bob.post(f"join/{room_id}", {}) for room_id in rooms))
    (await bob.post(f"rooms/{rooms[2]}/leave", {})).ok()
    path = f"profile/{bob.user_id}/displayname"
    (await bob.put(path, {"displayname": "Bob"})).ok()
    for room_id in rooms[:2]:
        member = await alice.state(room_id, "m.room.member", bob.user_id)
        assert member == {"membership": "join", "displayname": "Bob"}
    assert await alice.state(rooms[2], "m.room.member", bob.user_id) == {"membership": "leave"}
    (await bob.delete(path)).ok()
    assert await alice.state(rooms[0], "m.room.member", bob.user_id) == {"membership": "join"}


async def test_of_names_set_at_once_one_is_in_the_profile_and_in_all_rooms(api: Api) -> None:
    alice = await api.register()
    rooms = [await alice.create_room() for _ in range(3)]
    path = f"profile/{alice.user_id}/displayname"
    for _ in range(3):
        names = [{"displayname": f"Alice {number}"} for number in range(8)]
        for answer in await asyncio.gather(*(alice.put(path, name) for name in names)):
            answer.ok()
        kept = (await api.anybody.get(path)).ok()
        said = [await alice.state(room_id, "m.room.member", alice.user_id) for room_id in rooms]
        assert said == [{"membership": "join", **kept}] * 3


async def test_fields_of_ones_own_are_kept_with_any_value(api: Api) -> None:
    alice = await api.register()
    for field, value in (("org.example.pronouns", ["they"]), ("m.tz", "Europe/Berlin"), ("a.b_c", {"n": 1.5})):
        (await alice.put(f"profile/{alice.user_id}/{field}", {field: value})).ok()
        assert (await api.anybody.get(f"profile/{alice.user_id}/{field}")).ok() == {field: value}
    for _ in range(2):
        (await alice.delete(f"profile/{alice.user_id}/m.tz")).ok()
    assert (await api.anybody.get(f"profile/{alice.user_id}/m.tz")).refusal == (404, "M_NOT_FOUND")


async def test_fields_set_at_once_are_no_more_than_a_profile_may_have(api: Api) -> None:
    alice = await api.register()
    names = [f"org.example.field{number}" for number in range(6)]
    profile = f"profile/{alice.user_id}"
    answers = await asyncio.gather(*(alice.put(f"{profile}/{name}", {name: "x" * 40_000}) for name in names))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 5
    assert len((await api.anybody.get(profile)).ok()) == 1


async def test_an_empty_name_is_none(api: Api) -> None:
    alice = await api.register()
    path = f"profile/{alice.user_id}/displayname"
    for empty in ("", None):
        (await alice.put(path, {"displayname": "Alice"})).ok()
        (await alice.put(path, {"displayname": empty})).ok()
        assert (await api.anybody.get(path)).refusal == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("field", "body", "refusal"),
    [
        ("displayname", {}, (400, "M_MISSING_PARAM")),
        ("displayname", {"displayname": 5}, (400, "M_BAD_JSON")),
        ("displayname", {"displayname": "x" * 300}, (400, "M_INVALID_PARAM")),
        ("displayname", [], (400, "M_BAD_JSON")),
        ("avatar_url", {"avatar_url": "https://example.com/x.png"}, (400, "M_INVALID_PARAM")),
        ("avatar_url", {"avatar_url": "mxc://" + "x" * 2000}, (400, "M_INVALID_PARAM")),
        ("avatar_url", {"avatar_url": {}}, (400, "M_BAD_JSON")),
        ("m.tz", {"m.tz": 5}, (400, "M_BAD_JSON")),
        ("org.example", {"org.example": None}, (400, "M_INVALID_PARAM")),
        ("org.example", {"org.example": "x" * 66_000}, (400, "M_PROFILE_TOO_LARGE")),
        ("unnamespaced", {"unnamespaced": 1}, (400, "M_INVALID_PARAM")),
        ("Upper.case", {"Upper.case": 1}, (400, "M_INVALID_PARAM")),
        ("a." + "x" * 300, {}, (400, "M_KEY_TOO_LARGE")),
        (part("nul.\0"), {"nul.\0": 1}, (400, "M_INVALID_PARAM")),
    ],
)
async def test_a_field_that_cannot_be_is_refused(api: Api, field: str, body: Any, refusal: tuple[int, str]) -> None:
    alice = await api.register()
    assert (await alice.put(f"profile/{alice.user_id}/{field}", body)).refusal == refusal


async def test_profiles_are_changed_by_their_owners_alone(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    path = f"profile/{alice.user_id}/displayname"
    assert (await bob.put(path, {"displayname": "x"})).refusal == (403, "M_FORBIDDEN")
    assert (await bob.delete(path)).refusal == (403, "M_FORBIDDEN")
    assert (await api.anybody.put(path, {"displayname": "x"})).refusal == (401, "M_MISSING_TOKEN")


async def test_who_is_not_here_has_no_profile(api: Api) -> None:
    for user_id in ("@nobody.here:test.example", "@alice:elsewhere.example"):
        assert (await api.anybody.get(f"profile/{user_id}")).refusal == (404, "M_NOT_FOUND")
        assert (await api.anybody.get(f"profile/{user_id}/displayname")).refusal == (404, "M_NOT_FOUND")
    assert (await api.anybody.get("profile/nobody")).refusal == (400, "M_INVALID_PARAM")
