"""What a client sent, read field by field: every accessor gives the type it promises or the specification's error.

A member that is null counts as absent, as most clients mean it.
"""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request

from eventlog.sessions import Session
from matrix.errors import bad_json, forbidden, invalid_param, missing_param, too_large
from matrix.identifiers import fits, is_room_id, is_user_id

Body = dict[str, Any]


async def read_body(req: Request, *, optional: bool = False) -> Body:
    """The request's JSON object. `optional`: no body at all counts as an empty object."""
    body = await (req.get_media({}) if optional else req.get_media())
    if not isinstance(body, dict):
        raise bad_json("The request body must be a JSON object.")
    return body


def session_of(req: Request) -> Session:
    """Who makes the request; the resource does not list the method in `public_methods`."""
    session: Session = req.context.session
    return session


def check_own(session: Session, user_id: str) -> None:
    """M_FORBIDDEN unless the user id of the path is the requester's."""
    if session.user_id != user_id:
        raise forbidden("That belongs to another user.")


def check_room_id(room_id: str) -> str:
    """The room id; M_INVALID_PARAM if it is none."""
    if not is_room_id(room_id):
        raise invalid_param("Not a room ID.")
    return room_id


def text(body: Body, name: str) -> str | None:
    """A string, or None when absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_json(f"{name} must be a string.")
    return value


def required_text(body: Body, name: str) -> str:
    """A string; M_MISSING_PARAM when absent."""
    value = text(body, name)
    if value is None:
        raise missing_param(f"{name} is missing.")
    return value


def boolean(body: Body, name: str, default: bool = False) -> bool:
    """true or false."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad_json(f"{name} must be a boolean.")
    return value


def integer(body: Body, name: str, default: int) -> int:
    """A whole number."""
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int:
        raise bad_json(f"{name} must be an integer.")
    return value


def json_object(body: Body, name: str) -> Body | None:
    """An object, or None when absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise bad_json(f"{name} must be an object.")
    return value


def json_list(body: Body, name: str, most: int) -> list[Any]:
    """A list of at most `most` items, empty when absent."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad_json(f"{name} must be a list.")
    if len(value) > most:
        raise too_large(f"{name} may have {most} items.")
    return value


def texts(body: Body, name: str, most: int) -> list[str]:
    """A list of strings, empty when absent."""
    values = json_list(body, name, most)
    if not all(isinstance(value, str) for value in values):
        raise bad_json(f"{name} must be a list of strings.")
    return values


def required_user_id(body: Body, name: str = "user_id") -> str:
    """A user id; M_MISSING_PARAM when absent, M_INVALID_PARAM when it is none."""
    user_id = required_text(body, name)
    if not is_user_id(user_id):
        raise invalid_param(f"{name} is not a user ID.")
    return user_id


def short(name: str, value: str | None) -> str | None:
    """The value, if it has at most 255 bytes; M_INVALID_PARAM otherwise."""
    if value is not None and not fits(value):
        raise invalid_param(f"{name} is longer than 255 bytes.")
    return value


def page_size(req: Request, default: int, most: int) -> int:
    """The query parameter `limit`: M_INVALID_PARAM unless it is a number above 0; at most `most`."""
    raw = req.get_param("limit")
    if raw is None:
        return default
    if not raw.isdecimal() or not raw.isascii() or len(raw) > 18 or int(raw) < 1:
        raise invalid_param("limit must be a positive number.")
    return min(int(raw), most)
