"""Identifiers: server names, user ids, room ids, event ids, aliases, device ids.

What others have made is accepted by the historical grammar (rooms are full of it); what is made here follows the
strict one. Every identifier is at most 255 bytes of UTF-8. Source: appendices, "Identifier Grammar".
"""

from __future__ import annotations

import re
import secrets
from ipaddress import AddressValueError, IPv6Address
from string import ascii_letters, ascii_uppercase, digits

from matrix.errors import MatrixError, invalid_param, invalid_username

__all__ = [
    "MAX_IDENTIFIER_BYTES",
    "check_local_user_id",
    "fits",
    "is_compliant_user_id",
    "is_event_id",
    "is_opaque_identifier",
    "is_room_alias",
    "is_room_id",
    "is_server_name",
    "is_user_id",
    "is_validation_secret",
    "localpart_of",
    "new_device_id",
    "new_opaque_id",
    "new_room_id",
    "parse_server_name",
    "server_name_of",
]

MAX_IDENTIFIER_BYTES = 255

_SERVER_NAME = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(?::(?P<port>[0-9]{1,5}))?")
_IPV4_SHAPED = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_LOCAL_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")
_COMPLIANT_LOCALPART = re.compile(r"[!-9;-~]+")
_REFERENCE_HASH = re.compile(r"[A-Za-z0-9_-]{43}")
_OPAQUE = re.compile(r"[0-9A-Za-z._~-]{1,255}")
_VALIDATION = re.compile(r"[0-9A-Za-z.=_-]{1,255}")


def fits(identifier: str) -> bool:
    """Whether the text has at most 255 bytes of UTF-8."""
    length = len(identifier)
    if length > MAX_IDENTIFIER_BYTES:
        return False
    return identifier.isascii() or len(identifier.encode("utf-8", "surrogatepass")) <= MAX_IDENTIFIER_BYTES


def parse_server_name(name: str) -> tuple[str, int | None]:
    """Host (an IPv6 literal in its brackets) and port of a server name; M_INVALID_PARAM if it is none."""
    match = _SERVER_NAME.fullmatch(name)
    if match is None:
        raise invalid_param("Not a server name.")
    host, port = match["host"], match["port"]
    if host[0] == "[":
        try:
            IPv6Address(host[1:-1])
        except AddressValueError as error:
            raise invalid_param("Not a server name: bad IPv6 literal.") from error
    elif _IPV4_SHAPED.fullmatch(host) and any(int(part) > 255 for part in host.split(".")):
        raise invalid_param("Not a server name: bad IPv4 literal.")
    if port is not None and int(port) > 65535:
        raise invalid_param("Not a server name: no such port.")
    return host, None if port is None else int(port)


def is_server_name(name: object) -> bool:
    """Whether the value is a server name: a DNS name, IPv4 or bracketed IPv6 literal, and perhaps a port."""
    if not isinstance(name, str):
        return False
    try:
        parse_server_name(name)
    except MatrixError:
        return False
    return True


def server_name_of(identifier: str) -> str:
    """What follows the first colon: the server name of a user id, alias, or domainful room or event id; else empty."""
    return identifier.partition(":")[2]


def localpart_of(identifier: str) -> str:
    """What stands between the sigil and the first colon."""
    return identifier[1:].partition(":")[0]


def _is_domainful(identifier: object, sigil: str) -> bool:
    if not isinstance(identifier, str) or not identifier.startswith(sigil) or "\0" in identifier:
        return False
    _, colon, server_name = identifier.partition(":")
    return bool(colon) and fits(identifier) and _SERVER_NAME.fullmatch(server_name) is not None


def is_user_id(user_id: object) -> bool:
    """Whether events may name this user: historical grammar, any localpart without `:` and NUL, even an empty one."""
    return _is_domainful(user_id, "@")


def is_compliant_user_id(user_id: object) -> bool:
    """Whether the id may reach clients outside of events: a localpart of visible ASCII, not empty."""
    return (
        isinstance(user_id, str) and is_user_id(user_id) and bool(_COMPLIANT_LOCALPART.fullmatch(localpart_of(user_id)))
    )


def lower_case(username: str) -> str:
    """A user name with a-z for A-Z, and all else as it is: what people mean who begin theirs with a capital."""
    return "".join(c.lower() if "A" <= c <= "Z" else c for c in username)


def check_local_user_id(localpart: str, server_name: str) -> str:
    """The user id for a new account; M_INVALID_USERNAME unless the localpart is of `a-z0-9._=/+-` and fits."""
    if not _LOCAL_LOCALPART.fullmatch(localpart):
        raise invalid_username("A user name consists of a-z, 0-9, '.', '_', '=', '-', '/' and '+'.")
    user_id = f"@{localpart}:{server_name}"
    if not fits(user_id):
        raise invalid_username("The user ID would be longer than 255 bytes.")
    return user_id


def is_room_id(room_id: object) -> bool:
    """Whether the value is a room id of any version: with a domain, or `!` and a URL-safe reference hash."""
    if not isinstance(room_id, str) or not room_id.startswith("!"):
        return False
    return _REFERENCE_HASH.fullmatch(room_id, 1) is not None or _is_domainful(room_id, "!")


def is_event_id(event_id: object) -> bool:
    """Whether the value can be an event id of any version: `$`, something after it without NUL, and at most 255 bytes."""
    return (
        isinstance(event_id, str)
        and len(event_id) > 1
        and event_id[0] == "$"
        and "\0" not in event_id
        and fits(event_id)
    )


def is_room_alias(alias: object) -> bool:
    """Whether the value is a room alias."""
    return _is_domainful(alias, "#")


def is_opaque_identifier(identifier: object) -> bool:
    """Whether the value follows the grammar of opaque identifiers (transaction ids, session ids, tokens)."""
    return isinstance(identifier, str) and _OPAQUE.fullmatch(identifier) is not None


def is_validation_secret(secret: object) -> bool:
    """Whether the value can be the client_secret, or the id, of a validation of a third-party identifier."""
    return isinstance(secret, str) and _VALIDATION.fullmatch(secret) is not None


def new_opaque_id(length: int = 18) -> str:
    """Random letters and digits, 5.95 bits each."""
    return "".join(secrets.choice(ascii_letters + digits) for _ in range(length))


def new_room_id(server_name: str) -> str:
    """A room id for the versions whose rooms have a domain in their ids."""
    return f"!{new_opaque_id()}:{server_name}"


def new_device_id() -> str:
    """Ten random capitals, short enough to compare by eye."""
    return "".join(secrets.choice(ascii_uppercase) for _ in range(10))
