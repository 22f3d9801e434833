"""The HTTP plumbing around resources that misbehave."""

from typing import Any

import falcon
import httpx
import psycopg
import pytest

from bin.web import Gate, Routes, build_app
from eventlog.sessions import Session
from matrix.errors import limit_exceeded


class _Sessions:
    def cached(self, token: str) -> Session:
        return Session("@a:test.example", "D", b"")

    def see(self, session: Session, address: str | None) -> None:
        pass


class _Lifespan:
    async def open(self) -> None:
        pass

    def stop(self) -> None:
        pass

    async def close(self) -> None:
        pass


class _Resource:
    public_methods = frozenset({"GET"})

    async def on_get(self, req: Any, resp: Any, what: str) -> None:
        resp.text = "half an answer"
        match what:
            case "broken":
                raise RuntimeError("the secret is 42")
            case "database":
                raise psycopg.OperationalError("the secret is 42")
            case "limited":
                raise limit_exceeded(1500)
            case "missing":
                req.get_param("needed", required=True)
            case "number":
                req.get_param_as_int("n")
            case "teapot":
                raise falcon.HTTPError(418, title="Teapot")
            case "address":
                resp.text = req.scope["client"][0]


class _Writer:
    async def on_put(self, req: Any, resp: Any, what: str) -> None:
        resp.media = {"by": req.context.session.user_id}


def _gate(**options: Any) -> Gate:
    routes = Routes()
    routes.add_route("/x/{what}", _Resource())
    routes.add_route("/x/{what}", _Writer())
    return build_app(routes, _Sessions(), _Lifespan(), max_body_bytes=100, **options)  # type: ignore[arg-type]


async def _get(
    path: str, gate: Gate | None = None, headers: Any = None, method: str = "GET", client: str = "192.0.2.1"
) -> httpx.Response:
    transport = httpx.ASGITransport(app=gate or _gate(), client=(client, 1))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        return await http.request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("what", "status", "errcode"),
    [
        ("broken", 500, "M_UNKNOWN"),
        ("database", 503, "M_UNKNOWN"),
        ("limited", 429, "M_LIMIT_EXCEEDED"),
        ("missing", 400, "M_MISSING_PARAM"),
        ("number?n=x", 400, "M_INVALID_PARAM"),
        ("teapot", 418, "M_UNKNOWN"),
    ],
)
async def test_whatever_a_resource_raises_becomes_a_matrix_error(what: str, status: int, errcode: str) -> None:
    answer = await _get(f"/x/{what}")
    assert (answer.status_code, answer.json()["errcode"]) == (status, errcode)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "42" not in answer.text and "half" not in answer.text


async def test_who_is_to_wait_is_told_how_long() -> None:
    assert (await _get("/x/limited")).headers["retry-after"] == "2"
    assert (await _get("/x/database")).headers["retry-after"] == "2"


async def test_one_path_can_be_answered_by_two_resources() -> None:
    assert (await _get("/x/anything")).status_code == 200
    put = await _get("/x/anything", method="PUT", headers={"authorization": "Bearer x"})
    assert put.json() == {"by": "@a:test.example"}
    assert (await _get("/x/anything", method="PUT")).status_code == 401
    assert (await _get("/x/anything", method="POST")).status_code == 405


def test_a_path_is_answered_once_by_responders_that_take_its_fields() -> None:
    routes = Routes()
    routes.add_route("/x/{what}", _Resource())
    for template, suffix, why in (
        ("/x/{what}", None, "answered by"),
        ("/x/{other}", None, "its responder takes"),
        ("/y", "nothing", "no responder"),
    ):
        with pytest.raises(ValueError, match=why):
            routes.add_route(template, _Resource(), suffix=suffix)


@pytest.mark.parametrize(
    ("forwarded", "seen"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("10.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 192.0.2.2", "203.0.113.9"),
        ("", "192.0.2.1"),
        ("192.0.2.2", "192.0.2.1"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::9]:4711, ::ffff:192.0.2.2", "2001:db8::9"),
        ("2001:db8::9", "2001:db8::9"),
    ],
)
async def test_a_trusted_proxy_says_where_a_request_came_from(forwarded: str, seen: str) -> None:
    headers = {"x-forwarded-for": forwarded}
    trusting = _gate(trusted_proxies=("192.0.2.1", "192.0.2.2"))
    assert (await _get("/x/address", trusting, headers)).text == seen
    assert (await _get("/x/address", _gate(), headers)).text == "192.0.2.1"


async def test_who_comes_by_ipv4_to_a_listener_of_both_has_their_ordinary_address() -> None:
    headers = {"x-forwarded-for": "203.0.113.9"}
    assert (await _get("/x/address", _gate(), client="::ffff:192.0.2.1")).text == "192.0.2.1"
    trusting = _gate(trusted_proxies=("192.0.2.1",))
    assert (await _get("/x/address", trusting, headers, client="::ffff:192.0.2.1")).text == "203.0.113.9"
