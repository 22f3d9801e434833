"""Every response that httpx or aiohttp brings a test is held against the schemas of the specification, where they are at hand.

Invariant: a complaint fails the test during which it arose, also where the client (nio and mautrix sync in loops of their own)
passes over what its transport raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx
import pytest
from openapi import VARIABLE, OutsideTheSpecification, check_response, specification

JSON = "application/json"
_complaints: list[str] = []


def pytest_report_header() -> str:
    """Says whether this run checks anything."""
    found = specification()
    if found is None:
        return f"specification: {VARIABLE} names no checkout, so responses are not held against its schemas"
    return f"specification: responses are held against the schemas of {len(found.operations)} operations"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says of how many operations a success was checked, and with -v of which none was, though it has a schema."""
    found = specification()
    if found is None:
        return
    with_schema = {one.name for one in found.operations if one.area == "client-server" and one.schemas.get("200")}
    terminalreporter.write_line(
        f"specification: {len(with_schema & found.seen)} of {len(with_schema)} operations succeeded"
    )
    if terminalreporter.verbosity > 0:
        for name in sorted(with_schema - found.seen):
            terminalreporter.write_line(f"  never: {name}")


@pytest.fixture(scope="session", autouse=True)
def responses_are_held_against_the_specification() -> Iterator[None]:
    """Stands between the HTTP clients and whoever uses them."""
    if specification() is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.Client, "send", _checked(httpx.Client.send))
        patch.setattr(httpx.AsyncClient, "send", _checked_async(httpx.AsyncClient.send))
        patch.setattr(aiohttp.ClientSession, "_request", _checked_aiohttp(aiohttp.ClientSession._request))
        yield


@pytest.fixture(autouse=True)
def no_response_was_outside_the_specification(
    responses_are_held_against_the_specification: None,
) -> Iterator[None]:
    """Fails the test whose client kept a complaint to itself."""
    _complaints.clear()
    yield
    assert not _complaints


def _checked(send: Callable[..., httpx.Response]) -> Callable[..., httpx.Response]:
    def sent(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        answer = send(self, request, **options)
        if not options.get("stream"):
            _check_httpx(request, answer)
        return answer

    return sent


def _checked_async(send: Callable[..., Any]) -> Callable[..., Any]:
    async def sent(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        answer: httpx.Response = await send(self, request, **options)
        if not options.get("stream"):
            _check_httpx(request, answer)
        return answer

    return sent


def _check_httpx(request: httpx.Request, answer: httpx.Response) -> None:
    if answer.headers.get("content-type") == JSON:
        _check(request.method, request.url.raw_path.decode(), answer.status_code, answer.json())


def _checked_aiohttp(request: Callable[..., Any]) -> Callable[..., Any]:
    async def requested(self: aiohttp.ClientSession, method: str, url: Any, **options: Any) -> aiohttp.ClientResponse:
        answer: aiohttp.ClientResponse = await request(self, method, url, **options)
        found = specification()
        # Other kinds of servers than ours are asked as well, by ours, which reads their answers piece by piece.
        ours = found is not None and found.operation(method, answer.url.raw_path) is not None
        if ours and answer.content_type == JSON:
            # What has been read stays with the response for whoever reads it again.
            await answer.read()
            _check(method, answer.url.raw_path_qs, answer.status, await answer.json())
        return answer

    return requested


def _check(method: str, path: str, status: int, body: Any) -> None:
    try:
        check_response(method, path, status, body)
    except OutsideTheSpecification as complaint:
        _complaints.append(str(complaint))
        raise
