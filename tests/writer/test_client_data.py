"""Account data, tags, filters and push rules: what clients keep on the server."""

import asyncio
from typing import Any

import pytest
from api_server import Api, Client, part

from writer import account_data, push_rules


def _data(user: Client, data_type: str, room_id: str = "") -> str:
    room = f"rooms/{part(room_id)}/" if room_id else ""
    return f"user/{user.user_id}/{room}account_data/{part(data_type)}"


async def test_account_data_is_read_at_once_after_it_was_written(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    for place in ("", room_id):
        path = _data(alice, "org.example/\0", place)
        assert (await alice.get(path)).refusal == (404, "M_NOT_FOUND")
        for content in ({"n": 1.5, "\0": "\0"}, {}):
            assert (await alice.put(path, content)).ok() == {}
            assert (await alice.get(path)).ok() == content


async def test_account_data_is_its_owners(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    assert (await bob.put(_data(alice, "x"), {})).refusal == (403, "M_FORBIDDEN")
    assert (await bob.get(_data(alice, "x"))).refusal == (403, "M_FORBIDDEN")


async def test_what_has_an_endpoint_of_its_own_cannot_be_set_as_account_data(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    for data_type in ("m.fully_read", "m.push_rules"):
        assert (await alice.put(_data(alice, data_type), {})).refusal == (405, "M_BAD_JSON")
        assert (await alice.put(_data(alice, data_type, room_id), {})).refusal == (405, "M_BAD_JSON")


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        ("account_data/x", [], (400, "M_BAD_JSON")),
        ("account_data/x", None, (400, "M_NOT_JSON")),
        ("account_data/" + "x" * 300, {}, (400, "M_INVALID_PARAM")),
        ("rooms/nonsense/account_data/x", {}, (400, "M_INVALID_PARAM")),
        ("rooms/nonsense/tags/x", {}, (400, "M_INVALID_PARAM")),
        ("rooms/!r:test.example/tags/" + "x" * 300, {}, (400, "M_INVALID_PARAM")),
        ("rooms/!r:test.example/tags/x", {"order": "first"}, (400, "M_BAD_JSON")),
        ("rooms/!r:test.example/tags/x", {"order": True}, (400, "M_BAD_JSON")),
        ("rooms/!r:test.example/tags/x", {"order": 2}, (400, "M_INVALID_PARAM")),
        ("rooms/!r:test.example/tags/x", [], (400, "M_BAD_JSON")),
    ],
)
async def test_client_data_that_is_not_well_formed_is_refused(
    api: Api, path: str, body: Any, refusal: tuple[int, str]
) -> None:
    alice = await api.register()
    assert (await alice.put(f"user/{alice.user_id}/{path}", body)).refusal == refusal


async def test_there_are_so_many_types_of_account_data_and_no_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_data, "MOST_TYPES", 3)
    alice = await api.register()
    for room_id in ("", "!somewhere:test.example"):
        for number in range(3):
            (await alice.put(_data(alice, f"org.example.{number}", room_id), {"n": 1})).ok()
        refused = await alice.put(_data(alice, "org.example.more", room_id), {})
        assert refused.refusal == (413, "M_TOO_LARGE")
        (await alice.put(_data(alice, "org.example.1", room_id), {"n": 2})).ok()


async def test_tags_set_at_once_do_not_undo_each_other(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    tags = f"user/{alice.user_id}/rooms/{room_id}/tags"
    assert (await alice.get(tags)).ok() == {"tags": {}}
    names = [f"u.tag{n}" for n in range(6)]
    await asyncio.gather(*(alice.put(f"{tags}/{name}", {"order": 0.5}) for name in names))
    (await alice.put(f"{tags}/m.favourite", {"order": None})).ok()
    assert (await alice.get(tags)).ok() == {"tags": {**{name: {"order": 0.5} for name in names}, "m.favourite": {}}}
    for _ in range(2):
        (await alice.delete(f"{tags}/u.tag0")).ok()
    assert "u.tag0" not in (await alice.get(tags)).ok()["tags"]
    assert (await alice.get(_data(alice, "m.tag", room_id))).ok()["tags"]["m.favourite"] == {}


async def test_all_tags_of_a_room_together_have_so_many_bytes_and_no_more(api: Api) -> None:
    alice = await api.register()
    tags = f"user/{alice.user_id}/rooms/!somewhere:test.example/tags"
    for name, status in (("one", 200), ("two", 413), ("one", 200)):
        assert (await alice.put(f"{tags}/u.{name}", {"org.example": "x" * 40_000})).status == status
    assert (await alice.get(tags)).ok()["tags"].keys() == {"u.one"}


async def test_a_filter_is_kept_and_equal_ones_have_one_id(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    path = f"user/{alice.user_id}/filter"
    definition = {"room": {"timeline": {"limit": 5}, "state": {"lazy_load_members": True}}, "org.example": 1.5}
    filter_id = (await alice.post(path, definition)).ok()["filter_id"]
    assert not filter_id.startswith("{")
    assert (await alice.post(path, dict(reversed(definition.items())))).ok()["filter_id"] == filter_id
    assert (await alice.post(path, {})).ok()["filter_id"] != filter_id
    assert (await alice.get(f"{path}/{filter_id}")).ok() == definition
    assert (await alice.get(f"{path}/none")).refusal == (404, "M_NOT_FOUND")
    assert (await alice.get(f"{path}/%00")).refusal == (400, "M_INVALID_PARAM")
    assert (await bob.get(f"{path}/{filter_id}")).refusal == (403, "M_FORBIDDEN")
    assert (await bob.post(path, {})).refusal == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "definition",
    [[], {"room": []}, {"room": {"timeline": {"limit": "5"}}}, {"event_fields": "x"}, {"presence": {"types": [5]}}],
)
async def test_a_filter_of_the_wrong_types_is_bad_json(api: Api, definition: Any) -> None:
    alice = await api.register()
    assert (await alice.post(f"user/{alice.user_id}/filter", definition)).refusal == (400, "M_BAD_JSON")


async def test_everybody_begins_with_the_default_push_rules(api: Api) -> None:
    alice = await api.register()
    everything = (await alice.get("pushrules/")).ok()["global"]
    assert set(everything) == {"override", "content", "room", "sender", "underride"}
    assert everything["override"][0]["rule_id"] == ".m.rule.master"
    assert (await alice.get("pushrules/global/")).ok() == everything
    assert (await alice.get(_data(alice, "m.push_rules"))).ok() == {"global": everything}
    rule = (await alice.get("pushrules/global/underride/.m.rule.message")).ok()
    assert rule["default"] is True and rule["enabled"] is True


async def test_a_push_rule_of_ones_own_is_added_moved_changed_and_deleted(api: Api) -> None:
    alice = await api.register()
    for name in ("one", "two"):
        body = {"pattern": name, "actions": ["notify"]}
        assert (await alice.put(f"pushrules/global/content/{name}", body)).ok() == {}

    async def order() -> list[str]:
        rules = (await alice.get("pushrules/global/")).ok()["content"]
        return [rule["rule_id"] for rule in rules if not rule["default"]]

    assert await order() == ["two", "one"]
    (await alice.put("pushrules/global/content/two?after=one", {"pattern": "2", "actions": []})).ok()
    assert await order() == ["one", "two"]
    assert (await alice.get("pushrules/global/content/two")).ok()["pattern"] == "2"
    (await alice.put("pushrules/global/content/two/enabled", {"enabled": False})).ok()
    assert (await alice.get("pushrules/global/content/two/enabled")).ok() == {"enabled": False}
    (await alice.put("pushrules/global/content/two/actions", {"actions": ["notify"]})).ok()
    assert (await alice.get("pushrules/global/content/two/actions")).ok() == {"actions": ["notify"]}
    (await alice.delete("pushrules/global/content/two")).ok()
    assert await order() == ["one"]


async def test_all_push_rules_of_a_user_together_have_so_many_bytes_and_no_more(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await api.register()
    rule = {"pattern": "x" * 400_000, "actions": ["notify"]}
    (await alice.put("pushrules/global/content/one", rule)).ok()
    assert (await alice.put("pushrules/global/content/two", rule)).refusal == (413, "M_TOO_LARGE")
    tweak = {"actions": [{"set_tweak": "sound", "value": "x" * 200_000}]}
    default = "pushrules/global/underride/.m.rule.message/actions"
    assert (await alice.put(default, tweak)).refusal == (413, "M_TOO_LARGE")
    monkeypatch.setattr(push_rules, "MOST_BYTES", 1000)
    (await alice.put("pushrules/global/content/one/enabled", {"enabled": True})).ok()
    (await alice.put("pushrules/global/content/one", {**rule, "pattern": "x" * 2000})).ok()
    assert len((await alice.get("pushrules/global/")).ok()["content"]) == 1


async def test_default_push_rules_are_changed_and_never_deleted(api: Api) -> None:
    alice = await api.register()
    rule = "pushrules/global/underride/.m.rule.message"
    (await alice.put(f"{rule}/enabled", {"enabled": False})).ok()
    (await alice.put(f"{rule}/actions", {"actions": []})).ok()
    found = (await alice.get(rule)).ok()
    assert (found["enabled"], found["actions"], found["default"]) == (False, [], True)
    assert (await alice.delete(rule)).refusal == (404, "M_NOT_FOUND")
    assert (await alice.put(rule, {"actions": []})).refusal == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("method", "path", "body", "refusal"),
    [
        ("GET", "nonsense/x", None, (404, "M_NOT_FOUND")),
        ("GET", "room/x", None, (404, "M_NOT_FOUND")),
        ("GET", "room/x/enabled", None, (404, "M_NOT_FOUND")),
        ("GET", "room/x/actions", None, (404, "M_NOT_FOUND")),
        ("DELETE", "room/x", None, (404, "M_NOT_FOUND")),
        ("PUT", "room/x/enabled", {"enabled": True}, (404, "M_NOT_FOUND")),
        ("PUT", "room/x/enabled", {}, (400, "M_MISSING_PARAM")),
        ("PUT", "underride/.m.rule.message/enabled", {"enabled": 1}, (400, "M_BAD_JSON")),
        ("PUT", "underride/.m.rule.message/actions", {}, (400, "M_MISSING_PARAM")),
        ("PUT", "underride/.m.rule.message/actions", {"actions": "notify"}, (400, "M_BAD_JSON")),
        ("PUT", "content/x", {"actions": []}, (400, "M_MISSING_PARAM")),
        ("PUT", "content/x", {"pattern": "x"}, (400, "M_MISSING_PARAM")),
        ("PUT", "content/x?before=y", {"pattern": "x", "actions": []}, (400, "M_UNKNOWN")),
        ("PUT", "override/x", {"actions": [], "conditions": {}}, (400, "M_BAD_JSON")),
        ("PUT", "override/x", [], (400, "M_BAD_JSON")),
    ],
)
async def test_a_push_rule_that_is_not_well_formed_is_refused(
    api: Api, method: str, path: str, body: Any, refusal: tuple[int, str]
) -> None:
    alice = await api.register()
    assert (await alice.call(method, f"pushrules/global/{path}", body)).refusal == refusal


async def test_push_rules_set_at_once_do_not_undo_each_other(api: Api) -> None:
    alice = await api.register()
    rooms = [f"!room{n}:test.example" for n in range(6)]
    await asyncio.gather(*(alice.put(f"pushrules/global/room/{part(r)}", {"actions": []}) for r in rooms))
    assert {rule["rule_id"] for rule in (await alice.get("pushrules/global/")).ok()["room"]} == set(rooms)
