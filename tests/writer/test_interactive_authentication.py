"""Flows of more than one stage, which no endpoint has yet: the mechanism by itself."""

from typing import Any

import pytest
from api_server import Api

from matrix.errors import MatrixError, forbidden
from writer.interactive import AuthenticationRequired, Interactive

FLOWS = [["one", "two"], ["three"]]


async def _accept(auth: dict[str, Any]) -> dict[str, Any]:
    return {auth["type"]: auth.get("value", "")}


async def _refuse(auth: dict[str, Any]) -> dict[str, Any]:
    raise forbidden("Not so.")


STAGES = {"one": _accept, "two": _accept, "three": _refuse}


async def _required(interactive: Interactive, request: list[str], auth: object) -> dict[str, Any]:
    with pytest.raises(AuthenticationRequired) as refusal:
        await interactive.require(request, auth, FLOWS, STAGES)
    assert refusal.value.status == 401
    return refusal.value.body()


async def test_stages_are_completed_one_after_the_other_and_survive_a_restart(api: Api) -> None:
    interactive = Interactive(api.process.pool)
    asked = await _required(interactive, ["POST", "/x"], None)
    session = asked["session"]
    after_one = await _required(interactive, ["POST", "/x"], {"type": "one", "session": session, "value": "1"})
    assert after_one["completed"] == ["one"]
    restarted = Interactive(api.process.pool)
    found, left = await restarted.require(
        ["POST", "/x"], {"type": "two", "session": session, "value": "2"}, FLOWS, STAGES
    )
    assert found == session
    assert left == {"one": "1", "two": "2"}


async def test_a_session_serves_one_request_only(api: Api) -> None:
    interactive = Interactive(api.process.pool)
    session = (await _required(interactive, ["POST", "/x", "@a:b"], None))["session"]
    await _required(interactive, ["POST", "/x", "@a:b"], {"type": "one", "session": session})
    for request in (["DELETE", "/x", "@a:b"], ["POST", "/y", "@a:b"], ["POST", "/x", "@c:b"]):
        with pytest.raises(MatrixError) as refusal:
            await interactive.require(request, {"type": "two", "session": session}, FLOWS, STAGES)
        assert (refusal.value.status, refusal.value.errcode) == (403, "M_FORBIDDEN")


async def test_a_stage_that_fails_says_why_and_leaves_the_others_completed(api: Api) -> None:
    interactive = Interactive(api.process.pool)
    session = (await _required(interactive, ["POST", "/x"], None))["session"]
    await _required(interactive, ["POST", "/x"], {"type": "one", "session": session})
    failed = await _required(interactive, ["POST", "/x"], {"type": "three", "session": session})
    assert failed["errcode"] == "M_FORBIDDEN" and failed["error"] == "Not so."
    assert failed["completed"] == ["one"]


async def test_who_asks_without_a_stage_learns_what_is_completed(api: Api) -> None:
    interactive = Interactive(api.process.pool)
    session = (await _required(interactive, ["POST", "/x"], None))["session"]
    await _required(interactive, ["POST", "/x"], {"type": "one", "session": session})
    assert (await _required(interactive, ["POST", "/x"], {"session": session}))["completed"] == ["one"]


async def test_a_session_that_has_served_is_over(api: Api) -> None:
    interactive = Interactive(api.process.pool)
    session = (await _required(interactive, ["POST", "/x"], None))["session"]
    await _required(interactive, ["POST", "/x"], {"type": "one", "session": session})
    await interactive.end(session)
    assert (await _required(interactive, ["POST", "/x"], {"session": session}))["completed"] == []
