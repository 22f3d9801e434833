"""Every response that httpx brings a test is held against the specification, where its schemas are at hand (see `openapi`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from openapi import VARIABLE, check_response, specification


def pytest_report_header() -> str:
    """Says whether this run checks anything."""
    found = specification()
    if found is None:
        return f"specification: {VARIABLE} names no checkout, so responses are not held against its schemas"
    return f"specification: responses are held against the schemas of {len(found.operations)} operations"


@pytest.fixture(scope="session", autouse=True)
def responses_are_held_against_the_specification() -> Iterator[None]:
    """Stands between httpx and whoever uses it."""
    if specification() is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.Client, "send", _checked(httpx.Client.send))
        patch.setattr(httpx.AsyncClient, "send", _checked_async(httpx.AsyncClient.send))
        yield


def _checked(send: Callable[..., httpx.Response]) -> Callable[..., httpx.Response]:
    def sent(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        answer = send(self, request, **options)
        if not options.get("stream"):
            _check(request, answer)
        return answer

    return sent


def _checked_async(send: Callable[..., Any]) -> Callable[..., Any]:
    async def sent(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        answer: httpx.Response = await send(self, request, **options)
        if not options.get("stream"):
            _check(request, answer)
        return answer

    return sent


def _check(request: httpx.Request, answer: httpx.Response) -> None:
    if answer.headers.get("content-type") == "application/json":
        check_response(request.method, request.url.raw_path.decode(), answer.status_code, answer.json())
