"""The tests' own check of responses, on a specification of five operations; and that the real one is read, where it is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openapi import VARIABLE, Specification, specification

LOGIN = """
servers:
  - url: "{basePath}"
    variables: {basePath: {default: /_matrix/client/v3}}
paths:
  /login:
    get:
      responses:
        "200": {content: {application/json: {schema: {$ref: definitions/flows.yaml}}}}
        "429": {content: {application/json: {schema: {type: object, required: [retry_after_ms]}}}}
  "/rooms/{roomId}/state/{eventType}/{stateKey}":
    get:
      responses:
        "200": {content: {application/json: {schema: {oneOf: [{type: object}, {type: object, required: [content]}]}}}}
  "/things/{id}":
    get:
      responses:
        "200": {content: {application/json: {schema: {type: string}}}}
  /things/special:
    get:
      responses:
        "200": {$ref: "#/components/responses/number"}
        "202": {description: nothing}
  /owner:
    get:
      responses:
        "200": {content: {application/json: {schema: {type: string, format: mx-user-id}}}}
components:
  responses:
    number: {content: {application/json: {schema: {type: integer}}}}
"""
FLOWS = "{type: object, required: [flows], properties: {flows: {type: array, items: {$ref: 'flow.yaml#/flow'}}}}"
FLOW = "flow: {type: object, required: [type]}"
V3 = "/_matrix/client/v3"


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Specification:
    checkout = tmp_path_factory.mktemp("spec")
    folder = checkout / "data" / "api" / "client-server"
    (folder / "definitions").mkdir(parents=True)
    (folder / "login.yaml").write_text(LOGIN)
    (folder / "definitions" / "flows.yaml").write_text(FLOWS)
    (folder / "definitions" / "flow.yaml").write_text(FLOW)
    return Specification(checkout)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/login", 200, {"flows": [{"type": "m.login.password"}]}),
        ("/login", 429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1}),
        ("/login", 403, {"errcode": "M_FORBIDDEN"}),
        ("/login", 401, {"flows": [], "session": "x"}),
        ("/rooms/!a/state/m.room.name/", 200, {"content": {}}),
        ("/rooms/!a/state/m.room.name/", 200, {}),
        ("/things/special", 200, 5),
        ("/things/special", 202, {}),
        ("/things/other", 200, "text"),
        ("/owner", 200, "@alice:walden.example"),
        ("/unknown", 200, "anything"),
    ],
)
def test_what_the_specification_says_is_let_through(five: Specification, path: str, status: int, body: Any) -> None:
    assert five.complaint("GET", V3 + path, status, body) is None


@pytest.mark.parametrize(
    ("path", "status", "body", "where"),
    [
        ("/login", 200, {"flows": [{"type": "x"}, {}]}, "flows/1"),
        ("/login", 200, [], "the body"),
        ("/login", 201, {}, "no response 201"),
        ("/login", 429, {"errcode": "M_LIMIT_EXCEEDED"}, "retry_after_ms"),
        ("/login", 404, {"error": "no code"}, "no error"),
        ("/rooms/!a/state/m.room.name/", 200, [], "the body"),
        ("/things/special", 200, "text", "the body"),
        ("/things/other", 200, 5, "the body"),
        ("/owner", 200, "alice", "mx-user-id"),
    ],
)
def test_what_it_does_not_say_is_told_with_its_place(
    five: Specification, path: str, status: int, body: Any, where: str
) -> None:
    complaint = five.complaint("GET", V3 + path, status, body)
    assert complaint is not None
    assert where in complaint


def test_paths_of_old_are_the_same_endpoints(five: Specification) -> None:
    assert five.complaint("GET", "/_matrix/client/r0/login", 200, {}) is not None


def test_a_folder_that_is_no_checkout_is_not_taken_for_an_empty_specification(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Specification(tmp_path)


def test_the_whole_specification_is_read() -> None:
    found = specification()
    if found is None:
        pytest.skip(f"{VARIABLE} names no checkout of github:matrix-org/matrix-spec")
    assert len(found.operations) > 150
    templates = {one.template for one in found.operations}
    assert {
        "/_matrix/client/v3/sync",
        "/_matrix/client/versions",
        "/_matrix/client/v1/rooms/{roomId}/threads",
    } <= templates
    assert found.complaint("GET", "/_matrix/client/v3/sync", 200, {}) is not None
