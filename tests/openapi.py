"""Responses held against the specification's own OpenAPI schemas, which are not part of this repository.

Invariant: nothing is checked unless the variable WALDEN_SPEC_DIR names a checkout of github:matrix-org/matrix-spec; then every JSON
response that a test's client receives is, and one that does not fit fails the test that asked.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlparse

import yaml
from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import best_match
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

VARIABLE = "WALDEN_SPEC_DIR"
AREAS = ("client-server", "server-server")
METHODS = ("get", "post", "put", "delete", "patch")
ALIASES = (("/_matrix/client/r0/", "/_matrix/client/v3/"), ("/_matrix/media/r0/", "/_matrix/media/v3/"))
"""Paths of old that are the same endpoints."""

FORMATS = {
    "mx-user-id": r"@[^:]+:.+",
    "mx-room-id": r"![^:]+(:.+)?",
    "mx-room-alias": r"#[^:]+:.+",
    "mx-event-id": r"\$.+",
    "mx-server-name": r"[A-Za-z0-9.:\[\]-]+",
    "mx-mxc-uri": r"mxc://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9_-]+",
    "mx-unpadded-base64": r"[A-Za-z0-9+/]*",
    "mx-urlsafe-unpadded-base64": r"[A-Za-z0-9_-]*",
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:.+",
    "email": r"[^@]+@[^@]+",
}
"""What strings of the formats that the specification names look like."""

# Where the specification offers several forms they overlap: an event asked for whole is also "the content", any object.
Validator: Any = validators.extend(Draft202012Validator, {"oneOf": Draft202012Validator.VALIDATORS["anyOf"]})


class OutsideTheSpecification(AssertionError):
    """A response has another form than the specification gives it."""


@dataclass(frozen=True)
class Operation:
    """One method of one path, with the address of the schema of each status that has one."""

    area: str
    method: str
    template: str
    pattern: re.Pattern[str]
    schemas: dict[str, str | None]

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"


class Specification:
    """The operations below `data/api` of a checkout."""

    def __init__(self, checkout: Path) -> None:
        self._folder = checkout / "data" / "api"
        if not (self._folder / "client-server").is_dir():
            raise FileNotFoundError(f"{VARIABLE} is {checkout}, and there is no {self._folder}/client-server")
        self._registry: Registry[Any] = Registry(retrieve=_retrieve)  # type: ignore[call-arg]
        self._validators: dict[str, Any] = {}
        # The path that says more goes first: {field} would take everything.
        self.operations = sorted(self._read(), key=lambda found: (found.template.count("{"), found.template))
        self.seen: set[str] = set()
        """The operations of which a success has been checked."""

    def _read(self) -> Iterator[Operation]:
        for area in AREAS:
            for path in sorted((self._folder / area).glob("*.yaml")):
                document = _document(path)
                base = _base_path(document)
                for template, methods in document.get("paths", {}).items():
                    for method in METHODS:
                        if method in methods:
                            place = f"{path.as_uri()}#/paths/{_pointer(template)}/{method}/responses"
                            responses = methods[method]["responses"]
                            schemas = {status: _schema(place, status, said, path) for status, said in responses.items()}
                            full = base + template
                            yield Operation(area, method.upper(), full, _pattern(full), schemas)

    def operation(self, method: str, path: str) -> Operation | None:
        """The operation that a request is one of."""
        for old, new in ALIASES:
            if path.startswith(old):
                path = new + path.removeprefix(old)
        return next((one for one in self.operations if one.method == method and one.pattern.fullmatch(path)), None)

    def complaint(self, method: str, path: str, status: int, body: Any) -> str | None:
        """What is wrong with a response by the specification; None when nothing is. `path` is percent-encoded, without query."""
        operation = self.operation(method, path)
        if operation is None:
            return None
        address = operation.schemas.get(str(status))
        if status == 401 and _is_error(body):
            # What authentication has to say comes in every endpoint, and only some of their pages say so.
            return None
        if str(status) not in operation.schemas and status < 400:
            return f"{operation.name}: it has no response {status}"
        if address is None:
            # "Any errors which occur at the Matrix API level MUST return a standard error response."
            return (
                None
                if status < 400 or _is_error(body)
                else f"{operation.name} {status}: this is no error: {body!r:.300}"
            )
        if status < 400:
            self.seen.add(operation.name)
        error = best_match(self._validator(address).iter_errors(body))
        if error is None:
            return None
        where = "/".join(map(str, error.absolute_path)) or "the body"
        return f"{operation.name} {status}: {where}: {error.message:.500}"

    def _validator(self, address: str) -> Any:
        if address not in self._validators:
            schema = {"$ref": address}
            self._validators[address] = Validator(schema, registry=self._registry, format_checker=_formats())
        return self._validators[address]


@functools.cache
def _formats() -> FormatChecker:
    checker = FormatChecker(formats=())
    for name, form in FORMATS.items():
        checker.checks(name)(functools.partial(_has_form, re.compile(form)))
    return checker


def _has_form(form: re.Pattern[str], value: object) -> bool:
    return not isinstance(value, str) or form.fullmatch(value) is not None


@functools.cache
def specification() -> Specification | None:
    """That of the checkout which the environment names, if it names one."""
    checkout = os.environ.get(VARIABLE)
    return Specification(Path(checkout).resolve()) if checkout else None


def check_response(method: str, path: str, status: int, body: Any) -> None:
    """Raises OutsideTheSpecification. `path` is percent-encoded, with or without its query."""
    found = specification()
    path, _, query = path.partition("?")
    # Asked for in the form of federation, or in part, events are not what the schemas of this API describe.
    other = ("event_format" in query and "federation" in query) or "event_fields" in query
    if found is not None and not other:
        complaint = found.complaint(method, path, status, body)
        if complaint is not None:
            raise OutsideTheSpecification(complaint)


def _is_error(body: Any) -> bool:
    # User-interactive authentication answers 401 with what it wants, and an error only when a stage failed.
    return isinstance(body, dict) and (isinstance(body.get("errcode"), str) or "flows" in body)


def _base_path(document: dict[str, Any]) -> str:
    for server in document.get("servers", []):
        found = server.get("variables", {}).get("basePath", {}).get("default")
        if found is not None:
            return str(found)
        # A document whose paths are whole says no more than the host.
    return ""


def _schema(place: str, status: str, said: dict[str, Any], path: Path) -> str | None:
    if "$ref" in said:
        file, _, pointer = said["$ref"].partition("#")
        target = (path.parent / file).resolve() if file else path
        place, said = f"{target.as_uri()}#{pointer}", _document(target)
        for key in pointer.split("/")[1:]:
            said = said[key.replace("~1", "/").replace("~0", "~")]
    else:
        place = f"{place}/{status}"
    schema = said.get("content", {}).get("application/json", {}).get("schema")
    return None if schema is None else f"{place}/content/application~1json/schema"


def _pattern(template: str) -> re.Pattern[str]:
    # A state key may be empty.
    parts = re.split(r"(\{\w+\})", template.rstrip("/") or "/")
    return re.compile("".join("[^/]*" if part.startswith("{") else re.escape(part) for part in parts) + "/?")


def _pointer(key: str) -> str:
    return quote(key.replace("~", "~0").replace("/", "~1"), safe="~")


@functools.cache
def _document(path: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), loader)


def _retrieve(uri: str) -> Resource[Any]:
    return Resource(contents=_document(Path(unquote(urlparse(uri).path))), specification=DRAFT202012)
