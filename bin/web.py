"""HTTP around the resources: who asks, what the body is, which resource answers, and how every refusal looks.

Invariant: whatever happens, the answer is JSON with CORS headers, and a refusal is the specification's standard error
response. No body is read beyond its limit. A resource says in `public_methods` which of its methods need no access token, and in
`optional_methods` which take one but can do without; everywhere else `req.context.session` is there before its responder runs, and
is of an account that may use the endpoint (`bin/admission.py`). Resources raise `matrix.errors.MatrixError`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol
from urllib.parse import quote, unquote

import falcon
import falcon.asgi
import orjson
import psycopg
import structlog
from falcon.media import JSONHandler

from bin.admission import open_to_guests, open_to_locked, open_to_suspended
from bin.request_counts import count_answer, endpoint_class
from eventlog.sessions import Session, SessionCache
from matrix.errors import (
    MatrixError,
    guest_forbidden,
    invalid_param,
    missing_token,
    not_json,
    too_large,
    unknown,
    unrecognized,
    user_locked,
    user_suspended,
)
from matrix.json_input import parse_json
from writer.rate_limits import caller_at

log = structlog.get_logger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# "The recommended headers to be returned by servers on all requests" (client-server API, "Web browser clients").
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
    "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization",
    "access-control-max-age": "86400",
}
_CORS_ASGI = [(name.encode(), value.encode()) for name, value in CORS.items()]
# What media were called before v3; v1/create has no other name.
_MEDIA_VERSION = re.compile(r"^/_matrix/media/(?:r0|v1(?!/create$))/")
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
_FIELD = re.compile(r"\{(\w+)\}")
# Path fields that are text of the client's own; the others are identifiers, and none of those can contain U+0000.
_ANY_TEXT = frozenset(("event_type", "state_key", "txn_id", "data_type", "tag", "file_name"))
_MAPPED = "::ffff:"
_NOBODY: frozenset[str] = frozenset()
_UNSET: Any = object()


class Request(falcon.asgi.Request):
    """A request whose media is JSON, whatever its Content-Type says: clients leave it out, and so does the specification."""

    max_body_bytes = 1_048_576
    _parsed: Any = _UNSET

    async def get_media(self, default_when_empty: Any = _UNSET) -> Any:
        """The body as a JSON value. M_TOO_LARGE beyond the limit, M_NOT_JSON for an empty one unless there is a default."""
        if self._parsed is _UNSET:
            body = await self._body()
            if not body:
                if default_when_empty is not _UNSET:
                    return default_when_empty
                raise not_json("The request has no body.")
            self._parsed = parse_json(body)
        return self._parsed

    async def _body(self) -> bytes:
        length = self.get_header("content-length")
        if length is not None and length.isdecimal() and int(length) > self.max_body_bytes:
            raise too_large(f"The request body may have {self.max_body_bytes} bytes.")
        body: bytes = await self.stream.read(self.max_body_bytes + 1)
        if len(body) > self.max_body_bytes:
            raise too_large(f"The request body may have {self.max_body_bytes} bytes.")
        return body


class Lifespan(Protocol):
    """What is opened before the first request and closed after the last."""

    async def open(self) -> None:
        """Opens connections and starts tasks."""

    def stop(self) -> None:
        """Lets go of requests that only wait; it may be called from a signal handler."""

    async def close(self) -> None:
        """Ends them."""


class Gatekeeper:
    """Middleware: decodes path parameters and finds the session of the access token."""

    def __init__(self, sessions: SessionCache, lifespan: Lifespan, take: Callable[[str], None] | None) -> None:
        self._sessions = sessions
        self._lifespan = lifespan
        self._take = take

    async def process_startup(self, _scope: Scope, _event: dict[str, Any]) -> None:
        """Before the first request."""
        await self._lifespan.open()

    async def process_shutdown(self, _scope: Scope, _event: dict[str, Any]) -> None:
        """After the last one."""
        await self._lifespan.close()

    async def process_resource(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, resource: Any, params: dict[str, Any]
    ) -> None:
        """Once the resource is known, before its responder."""
        for name, value in params.items():
            if "%" in value:
                params[name] = _decode(name, value)
        if req.method not in resource.protected_methods and not (
            req.method in resource.optional_methods and has_token(req)
        ):
            req.context.session = None
            if self._take is not None and resource.limited:
                self._take(f"address {caller_at(address(req) or '')}")
            return
        token = access_token(req)
        session = self._sessions.cached(token) or await self._sessions.session(token)
        if session.locked or session.suspended or session.guest:
            _check_admission(session, req.method, resource)
        if self._take is not None and resource.limited:
            self._take(session.user_id)
        session.user_agent = req.user_agent
        self._sessions.see(session, address(req))
        req.context.session = session

    async def process_response(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, resource: Any, req_succeeded: bool
    ) -> None:
        """After the responder, or what answered in its place."""
        if req_succeeded and req.method == "GET":
            session = getattr(req.context, "session", None)
            if session is not None and not session.watched:
                # It may have been ended, or its account locked, while the responder waited: what was found is not for it.
                again = await self._sessions.session(access_token(req))
                if again.locked:
                    raise user_locked()
        count_answer("unknown" if resource is None else resource.endpoint, req.method, resp.status)


def _check_admission(session: Session, method: str, resource: Any) -> None:
    if session.locked and method not in resource.locked_methods:
        raise user_locked()
    if session.suspended and method not in resource.suspended_methods:
        raise user_suspended()
    if session.guest and method not in resource.guest_methods:
        raise guest_forbidden()


def _decode(name: str, segment: str) -> str:
    try:
        value = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise invalid_param("The path is not UTF-8.") from None
    if "\0" in value and name not in _ANY_TEXT:
        raise invalid_param("An identifier cannot contain the character U+0000.")
    return value


def has_token(req: falcon.asgi.Request) -> bool:
    """Whether a request brings an access token, be it a good one or not."""
    return req.get_header("authorization") is not None or req.has_param("access_token")


def access_token(req: falcon.asgi.Request) -> str:
    """The token of the Authorization header, else of the query string; M_MISSING_TOKEN if there is none."""
    header = req.get_header("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise missing_token()
        return token
    # "…deprecated… a query string parameter access_token" (client-server API, "Using access tokens").
    return req.get_param("access_token") or _no_token()


def _no_token() -> str:
    raise missing_token()


def address(req: falcon.asgi.Request) -> str | None:
    """Address of the client; `Gate` has put that of a trusted proxy's client in its place."""
    client = req.scope.get("client")
    return client[0] if client else None


class Routes:
    """Collects resources by URI template, so that one path can have methods of a writer and of a reader."""

    def __init__(self) -> None:
        self._routes: dict[str, dict[str, tuple[object, str]]] = {}

    def add_route(self, template: str, resource: object, *, suffix: str | None = None) -> None:
        """Takes every `on_get`, `on_post_suffix`… the resource has.

        ValueError when a path has the method already, or a responder does not take the path's fields.
        """
        ending = f"_{suffix}" if suffix else ""
        found = [method for method in _METHODS if hasattr(resource, f"on_{method.lower()}{ending}")]
        if not found:
            raise ValueError(f"{resource!r} has no responder for {template} with suffix {suffix!r}")
        methods = self._routes.setdefault(template, {})
        fields = _FIELD.findall(template)
        for method in found:
            taken = inspect.signature(getattr(resource, f"on_{method.lower()}{ending}")).parameters
            if not set(fields) <= taken.keys():
                raise ValueError(f"{resource!r} cannot answer {method} {template}: its responder takes {list(taken)}")
            if method in methods:
                raise ValueError(f"{method} {template} is answered by {methods[method][0]!r} already")
            methods[method] = (resource, f"on_{method.lower()}{ending}")

    def install(self, app: falcon.asgi.App[Any, Any]) -> None:
        """Adds the routes to the application."""
        for template, methods in self._routes.items():
            app.add_route(template, _Joined(template, methods))

    def methods(self) -> Iterable[tuple[str, str]]:
        """Every (method, template) there is."""
        for template, methods in self._routes.items():
            for method in methods:
                yield method, template


class _Joined:
    """The responders of one path, whoever they belong to."""

    def __init__(self, template: str, methods: dict[str, tuple[object, str]]) -> None:
        self.endpoint = endpoint_class(template)
        self.optional_methods = _said(methods, "optional_methods")
        self.protected_methods = methods.keys() - _said(methods, "public_methods") - self.optional_methods
        self.guest_methods = open_to_guests(template, methods)
        self.suspended_methods = open_to_suspended(template, methods)
        self.locked_methods = open_to_locked(template, methods)
        # Other servers have bounds of their own.
        self.limited = not template.startswith(("/_matrix/federation/", "/_matrix/key/"))
        for method, (resource, name) in methods.items():
            setattr(self, f"on_{method.lower()}", getattr(resource, name))


def _said(methods: dict[str, tuple[object, str]], attribute: str) -> frozenset[str]:
    """The methods that their resources name in an attribute."""
    return frozenset(m for m, (resource, _) in methods.items() if m in getattr(resource, attribute, _NOBODY))


class Gate:
    """The outermost ASGI application: answers OPTIONS, and hands falcon the path still percent-encoded.

    A `/` within an event id or a state key is part of it only as `%2F`, which the server has decoded in `path`.
    """

    def __init__(self, app: falcon.asgi.App[Any, Any], lifespan: Lifespan, trusted_proxies: Iterable[str] = ()) -> None:
        self._app = app
        self.stop = lifespan.stop
        self._trusted = frozenset(trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path")
            path: str = raw.decode("latin-1") if raw else quote(scope["path"])
            if scope["method"] == "OPTIONS":
                await _respond(send, 200, b"{}")
                return
            query: bytes = scope["query_string"]
            if query and (not query.isascii() or b"%00" in query):
                error = invalid_param("The query string is not ASCII, or has the character U+0000.")
                await _respond(send, 400, orjson.dumps(error.body()))
                return
            if path.startswith("/_matrix/client/r0/"):
                # What old clients call it; nothing else about these endpoints has changed.
                path = "/_matrix/client/v3/" + path[19:]
            elif path.startswith("/_matrix/media/"):
                path = _MEDIA_VERSION.sub("/_matrix/media/v3/", path)
            scope["path"] = path
            if scope["client"] and scope["client"][0].startswith(_MAPPED):
                # What a listener on [::] calls those who come by IPv4.
                scope["client"] = (scope["client"][0][len(_MAPPED) :], scope["client"][1])
            if self._trusted and scope["client"] and scope["client"][0] in self._trusted:
                _believe_proxy(scope, self._trusted)
        await self._app(scope, receive, send)


def _believe_proxy(scope: Scope, trusted: frozenset[str]) -> None:
    """Puts the last address of X-Forwarded-For that is no trusted proxy in the client's place."""
    for name, value in scope["headers"]:
        if name == b"x-forwarded-for":
            hops = [_hop(text) for text in value.decode("latin-1").split(",")]
            client = next((hop for hop in reversed(hops) if hop not in trusted), None)
            if client:
                scope["client"] = (client[:64], 0)


def _hop(text: str) -> str:
    """The address of a hop; some proxies add the port, and brackets to IPv6."""
    hop = text.strip().strip('"')
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    return hop.removeprefix(_MAPPED)


async def _respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_CORS_ASGI]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Response(falcon.asgi.Response):
    """A response that has the CORS headers from the start."""

    def __init__(self, options: falcon.ResponseOptions | None = None) -> None:
        super().__init__(options=options)
        self.set_headers(CORS)


def build_app(
    routes: Routes,
    sessions: SessionCache,
    lifespan: Lifespan,
    *,
    max_body_bytes: int,
    trusted_proxies: Iterable[str] = (),
    take: Callable[[str], None] | None = None,
) -> Gate:
    """The ASGI application of a set of routes. `take` is called with the caller of each request, and may refuse it."""
    request_type = type("Request", (Request,), {"max_body_bytes": max_body_bytes})
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(
        request_type=request_type, response_type=Response, middleware=[Gatekeeper(sessions, lifespan, take)]
    )
    # PERF: falcon asks this whether it may skip Response.render_body, which ours does not change.
    app._standard_response_type = True
    app.req_options.auto_parse_qs_csv = False
    app.req_options.keep_blank_qs_values = True
    app.resp_options.media_handlers["application/json"] = JSONHandler(dumps=orjson.dumps, loads=orjson.loads)
    app.add_error_handler(Exception, _on_exception)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(psycopg.OperationalError, _on_database_down)
    app.add_error_handler(MatrixError, _on_matrix_error)
    routes.install(app)
    return Gate(app, lifespan, trusted_proxies)


def _refuse(resp: falcon.asgi.Response, error: MatrixError) -> None:
    resp.status = error.status
    resp.text = resp.media = resp.stream = None
    resp.content_type = falcon.MEDIA_JSON
    resp.data = orjson.dumps(error.body())
    retry_after_ms = error.extra.get("retry_after_ms")
    if isinstance(retry_after_ms, int):
        resp.set_header("retry-after", str(math.ceil(retry_after_ms / 1000)))


async def _on_matrix_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: MatrixError, params: dict[str, Any]
) -> None:
    _refuse(resp, error)


async def _on_http_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    status = error.status_code
    match error:
        case falcon.HTTPMissingParam():
            refusal = MatrixError(400, "M_MISSING_PARAM", error.description or "A parameter is missing.")
        case falcon.HTTPInvalidParam():
            refusal = invalid_param(error.description or "A parameter has the wrong value.")
        case falcon.HTTPMethodNotAllowed():
            refusal = unrecognized(405)
            for name, value in (error.headers or {}).items():  # type: ignore[union-attr]
                resp.set_header(name, value)
        case falcon.HTTPNotFound() | falcon.HTTPBadRequest():
            # "M_UNRECOGNIZED: the server did not understand the request": an unknown path is 404, a method that HTTP itself
            # does not know 400.
            refusal = unrecognized(status)
        case _:
            refusal = too_large(error.title) if status == 413 else unknown(status, error.title)
    _refuse(resp, refusal)


async def _on_database_down(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: dict[str, Any]
) -> None:
    log.warning("the database does not answer", method=req.method, route=req.uri_template, error=str(error).strip())
    _refuse(resp, unknown(503, "The server's database does not answer."))
    resp.set_header("retry-after", "2")


async def _on_exception(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: dict[str, Any]
) -> None:
    log.error("unexpected error", method=req.method, route=req.uri_template, exc_info=error)
    _refuse(resp, unknown(500, "Internal server error."))
