"""The standard error response: every refusal of input in this package is one exception that knows its HTTP form.

Source: client-server API, "Standard error response" and "Common error codes".
"""

from __future__ import annotations

__all__ = [
    "MatrixError",
    "bad_json",
    "bad_state",
    "forbidden",
    "guest_forbidden",
    "invalid_param",
    "invalid_username",
    "limit_exceeded",
    "missing_param",
    "missing_token",
    "not_found",
    "not_json",
    "room_in_use",
    "too_large",
    "unauthorized",
    "unknown",
    "unknown_token",
    "unrecognized",
    "unsupported_room_version",
    "user_in_use",
    "user_locked",
    "user_suspended",
]


class MatrixError(Exception):
    """A refusal with an HTTP status, an errcode (`M_…`), a sentence for people, and what else the errcode defines."""

    def __init__(self, status: int, errcode: str, error: str, **extra: object) -> None:
        super().__init__(f"{status} {errcode}: {error}")
        self.status = status
        self.errcode = errcode
        self.error = error
        self.extra = extra

    def body(self) -> dict[str, object]:
        """The JSON object of the response: errcode, error, and the extra members."""
        return {**self.extra, "errcode": self.errcode, "error": self.error}


def bad_json(error: str) -> MatrixError:
    """Valid JSON that is not what was asked for: a missing or mistyped member, a number outside the canonical range."""
    return MatrixError(400, "M_BAD_JSON", error)


def not_json(error: str) -> MatrixError:
    """Bytes that are no JSON text."""
    return MatrixError(400, "M_NOT_JSON", error)


def missing_param(error: str) -> MatrixError:
    """A required parameter is absent."""
    return MatrixError(400, "M_MISSING_PARAM", error)


def invalid_param(error: str) -> MatrixError:
    """A parameter has the wrong value."""
    return MatrixError(400, "M_INVALID_PARAM", error)


def bad_state(error: str) -> MatrixError:
    """The request does not fit the state of the room."""
    return MatrixError(400, "M_BAD_STATE", error)


def invalid_username(error: str) -> MatrixError:
    """A user name that may not be registered."""
    return MatrixError(400, "M_INVALID_USERNAME", error)


def user_in_use(error: str = "User ID already taken.") -> MatrixError:
    """A user name that somebody has."""
    return MatrixError(400, "M_USER_IN_USE", error)


def room_in_use(error: str) -> MatrixError:
    """A room alias that somebody has."""
    return MatrixError(400, "M_ROOM_IN_USE", error)


def unsupported_room_version(version: object) -> MatrixError:
    """A room version that this server does not implement."""
    return MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", f"This server does not implement room version {version!r}.")


def missing_token() -> MatrixError:
    """No access token where one is required."""
    return MatrixError(401, "M_MISSING_TOKEN", "Missing access token.")


def unknown_token(error: str = "Unrecognised access token.", *, soft_logout: bool = False) -> MatrixError:
    """An access token that is not, or no longer, valid; `soft_logout` says that the device is kept."""
    return MatrixError(401, "M_UNKNOWN_TOKEN", error, soft_logout=soft_logout)


def unauthorized(error: str) -> MatrixError:
    """A request, usually of another server, that is not correctly authorised."""
    return MatrixError(401, "M_UNAUTHORIZED", error)


def forbidden(error: str) -> MatrixError:
    """The requester may not do this."""
    return MatrixError(403, "M_FORBIDDEN", error)


def guest_forbidden() -> MatrixError:
    """The requester has a guest account, and guests may not do this."""
    return MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", "Guests cannot do this. Register an account.")


def user_locked() -> MatrixError:
    """The requester's account is locked; its sessions are kept."""
    return MatrixError(401, "M_USER_LOCKED", "This account has been locked.", soft_logout=True)


def user_suspended() -> MatrixError:
    """The requester's account is suspended, and may read but not do this."""
    return MatrixError(403, "M_USER_SUSPENDED", "You cannot perform this action while suspended.")


def not_found(error: str = "Not found.") -> MatrixError:
    """No such thing, or none that the requester may know of."""
    return MatrixError(404, "M_NOT_FOUND", error)


def unrecognized(status: int = 404, error: str = "Unrecognised request.") -> MatrixError:
    """An endpoint (404) or a method of an endpoint (405) that does not exist."""
    return MatrixError(status, "M_UNRECOGNIZED", error)


def too_large(error: str) -> MatrixError:
    """A request, event or upload beyond its size limit."""
    return MatrixError(413, "M_TOO_LARGE", error)


def limit_exceeded(retry_after_ms: int) -> MatrixError:
    """Too many requests; `retry_after_ms` is the wait in milliseconds."""
    return MatrixError(429, "M_LIMIT_EXCEEDED", "Too many requests.", retry_after_ms=retry_after_ms)


def unknown(status: int, error: str) -> MatrixError:
    """A failure that has no errcode of its own."""
    return MatrixError(status, "M_UNKNOWN", error)
