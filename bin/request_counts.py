"""How many requests were answered, by class of endpoint, method and status.

Invariant: the labels are a closed set, whatever clients ask for: a path that nothing answers to is `unknown`, a method beyond those
that the API has is `other`.
"""

from typing import Final

from prometheus_client import Counter

from eventlog.metrics import Tallies

CLASSES: Final[dict[str, frozenset[str]]] = {
    "sync": frozenset({"sync"}),
    "send": frozenset({"send", "redact"}),
    "state": frozenset({"state"}),
    "create_room": frozenset({"createRoom", "upgrade"}),
    "membership": frozenset({"join", "knock", "leave", "forget", "invite", "kick", "ban", "unban"}),
    "messages": frozenset({"messages", "initialSync"}),
    "events": frozenset({"event", "events", "context", "relations", "timestamp_to_event", "threads"}),
    "members": frozenset({"members", "joined_members", "joined_rooms", "mutual_rooms"}),
    "spaces": frozenset({"hierarchy", "room_summary"}),
    "reports": frozenset({"report"}),
    "typing": frozenset({"typing"}),
    "receipts": frozenset({"receipt", "read_markers"}),
    "account_data": frozenset({"account_data", "tags", "filter"}),
    "push_rules": frozenset({"pushrules"}),
    "notifications": frozenset({"notifications", "pushers"}),
    "search": frozenset({"search", "user_directory"}),
    "presence": frozenset({"presence"}),
    "profile": frozenset({"profile"}),
    "login": frozenset({"login", "logout", "refresh"}),
    "registration": frozenset({"register"}),
    "account": frozenset({"account", "auth", "devices", "delete_devices", "email"}),
    "moderation": frozenset({"suspend", "lock", "whois", "send_server_notice"}),
    "third_parties": frozenset({"thirdparty", "openid", "turnServer"}),
    "directory": frozenset({"directory", "publicRooms", "aliases"}),
    "keys": frozenset({"keys", "room_keys", "sendToDevice", "dehydrated_device"}),
    "media": frozenset({"media", "upload", "download", "thumbnail"}),
    "discovery": frozenset({"versions", ".well-known", "capabilities"}),
}
"""Classes of endpoints, by the literal path segments that tell them; the first that fits."""
_METHODS = frozenset(("GET", "POST", "PUT", "DELETE"))
_ANSWERED = Tallies(
    Counter("walden_requests", "Requests answered, by class of endpoint.", ["endpoint", "method", "status"])
)


def endpoint_class(template: str) -> str:
    """The class of a URI template."""
    if template.startswith(("/_matrix/federation/", "/_matrix/key/")):
        return "federation"
    segments = frozenset(template.split("/"))
    return next((name for name, telling in CLASSES.items() if telling & segments), "other")


def count_answer(endpoint: str, method: str, status: object) -> None:
    """Counts an answer. `status` is as falcon has it: a code, or a line that begins with it."""
    _ANSWERED.add(endpoint, method if method in _METHODS else "other", str(status)[:3])
