"""User-interactive authentication: a request is refused with 401 until the stages of one of its flows are completed.

Invariant: a session serves one method, path and user, and ends with the request that it allowed. Until a stage is completed
nothing is stored, so that a refusal costs no write; a request that completes all stages by itself stores nothing at all. Sessions
are rows, and survive a restart. The stages of a flow are completed in its order.
Source: client-server API, "User-Interactive Authentication API".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import orjson

from eventlog.pools import Pool
from eventlog.queries import Queries
from matrix.errors import MatrixError, bad_json, forbidden
from matrix.identifiers import is_opaque_identifier, new_opaque_id

SQL = Queries("writer", "interactive.sql")

Stage = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Checks the `auth` object of one stage: returns what it leaves for the request, raises MatrixError to refuse."""


class AuthenticationRequired(MatrixError):
    """The 401 that lists the flows. It has an errcode only when a stage has just failed."""

    def __init__(self, members: dict[str, object], failure: MatrixError | None) -> None:
        errcode, error = (failure.errcode, failure.error) if failure else ("M_FORBIDDEN", "Authentication required.")
        super().__init__(401, errcode, error, **members)
        self._failed = failure is not None

    def body(self) -> dict[str, object]:
        """The flows, and the failure of a stage."""
        return super().body() if self._failed else dict(self.extra)


class Interactive:
    """Decides whether a request is authenticated."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def require(
        self,
        request: Sequence[str],
        auth: object,
        flows: Sequence[Sequence[str]],
        stages: Mapping[str, Stage],
        params: Mapping[str, object] = MappingProxyType({}),
    ) -> tuple[str, dict[str, Any]]:
        """Returns the session id and what the stages left, once a flow is complete; raises AuthenticationRequired until then.

        `request` says what the session is for (method, path, user). `auth` is the body's member of that name. `params` are the
        parameters of stages, by stage.
        """

        def required(session_id: str, completed: Sequence[str], failure: MatrixError | None) -> AuthenticationRequired:
            return _required(session_id, flows, params, completed, failure)

        request_hash = hash_of(request)
        if auth is None:
            raise required(new_opaque_id(24), [], None)
        if not isinstance(auth, dict):
            raise bad_json("auth must be an object.")
        session_id, completed, data = await self._session(auth.get("session"), request_hash)
        if _is_complete(flows, completed):
            return session_id, data
        stage = auth.get("type")
        if not isinstance(stage, str):
            if stage is not None:
                raise bad_json("auth.type must be a string.")
            # A client that has completed a stage elsewhere asks whether that was all.
            raise required(session_id, completed, None)
        if stage in completed:
            # "Completed stages cannot be retried by clients".
            raise required(session_id, completed, None)
        if stage not in stages or not any(stage in flow for flow in flows):
            refusal = MatrixError(401, "M_UNRECOGNIZED", "There is no such authentication stage here.")
            raise required(session_id, completed, refusal)
        try:
            left = await stages[stage](auth)
            if not any(flow[: len(completed) + 1] == [*completed, stage] for flow in map(list, flows)):
                # "The flow's stages must be completed in order. Failing to follow the flows in order must result in… 401".
                raise forbidden("Another stage has to be completed first.")
        except MatrixError as failure:
            if failure.status not in (401, 403):
                raise
            raise required(session_id, completed, failure) from failure
        if _is_complete(flows, [*completed, stage]):
            return session_id, {**data, **left}
        completed = await self.complete(session_id, request_hash, stage, {**data, **left})
        raise required(session_id, completed, None)

    async def complete(self, session_id: str, request_hash: bytes, stage: str, left: dict[str, Any]) -> list[str]:
        """Writes down that a stage is completed and what it left; returns the stages that now are, in their order."""
        values = {"session_id": session_id, "request_hash": request_hash, "stage": stage}
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["complete"], {**values, "data": orjson.dumps(left).decode()})
            row = await cursor.fetchone()
        return list(row[0]) if row is not None else []

    async def completed(self, session_id: str, request: Sequence[str]) -> list[str]:
        """The stages that are completed. M_FORBIDDEN if the session is another request's."""
        return (await self._session(session_id, hash_of(request)))[1]

    async def end(self, session_id: str) -> None:
        """Ends a session whose request has been carried out."""
        async with self._pool.connection() as connection:
            await connection.execute(SQL["end"], {"session_id": session_id})

    async def _session(self, session_id: object, request_hash: bytes) -> tuple[str, list[str], dict[str, Any]]:
        if session_id is None:
            return new_opaque_id(24), [], {}
        if not isinstance(session_id, str):
            raise bad_json("auth.session must be a string.")
        if not is_opaque_identifier(session_id):
            raise forbidden("There is no such authentication session.")
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["session"], {"session_id": session_id})).fetchone()
        if row is None:
            return session_id, [], {}
        if bytes(row[0]) != request_hash:
            raise forbidden("The authentication session was begun for another request.")
        return session_id, row[1], orjson.loads(row[2])


def hash_of(request: Sequence[str]) -> bytes:
    """What is stored of what a session is for."""
    return sha256("\0".join(request).encode()).digest()


def _is_complete(flows: Sequence[Sequence[str]], completed: Sequence[str]) -> bool:
    return any(list(flow) == list(completed) for flow in flows)


def _required(
    session_id: str,
    flows: Sequence[Sequence[str]],
    params: Mapping[str, object],
    completed: Sequence[str],
    failure: MatrixError | None,
) -> AuthenticationRequired:
    members: dict[str, object] = {
        "flows": [{"stages": list(flow)} for flow in flows],
        "params": dict(params),
        "session": session_id,
        "completed": list(completed),
    }
    return AuthenticationRequired(members, failure)
