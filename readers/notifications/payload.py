"""What a push gateway is told of an event.

Source: push gateway API, "POST /_matrix/push/v1/notify".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from eventlog.safe_text import unsafe

EVENT_ID_ONLY: Final = "event_id_only"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Push:
    """One event for one pusher. PDUs are JSON as the log has them, None where there is none."""

    pusher: int
    entry: int
    attempts: int
    actions: str
    room: int
    user_id: str
    app_id: str
    pushkey: str
    set_at: int
    data: str
    room_id: str | None
    event_id: str | None
    pdu: str | None
    redacted: bool
    name_pdu: str | None
    alias_pdu: str | None
    member_pdu: str | None

    @property
    def settings(self) -> Json:
        """What the application set: url, format, and what else it wants to get back."""
        settings: Json = orjson.loads(self.data)
        return settings

    @property
    def host(self) -> str:
        """The host of the gateway, with its port where that is said; empty for a URL that is none."""
        try:
            return urlsplit(str(self.settings.get("url"))).netloc
        except ValueError:
            return ""

    @property
    def is_void(self) -> bool:
        """Whether there is nothing to tell any more: the event was redacted, or has left the log."""
        return self.pdu is None or self.redacted or self.room_id is None

    def body(self, unread: int) -> Json:
        """The request's body; `unread` is how many events the user has not read."""
        settings = self.settings
        device: Json = {
            "app_id": unsafe(self.app_id),
            "pushkey": unsafe(self.pushkey),
            "pushkey_ts": self.set_at,
            # "The data dictionary passed in at pusher creation minus the url key."
            "data": {name: value for name, value in settings.items() if name != "url"},
        }
        tweaks = self._tweaks()
        notification: Json = {
            "event_id": self.event_id,
            "room_id": self.room_id,
            "prio": "high" if tweaks.get("highlight") or tweaks.get("sound") else "low",
            # "Counts whose value is zero should be omitted."
            "counts": {"unread": unread} if unread else {},
            "devices": [device],
        }
        if settings.get("format") != EVENT_ID_ONLY:
            device["tweaks"] = tweaks
            notification |= self._about()
        return {"notification": notification}

    def _tweaks(self) -> Json:
        return {
            action["set_tweak"]: action.get("value", True)
            for action in orjson.loads(self.actions)
            if isinstance(action, dict)
        }

    def _about(self) -> Json:
        event = orjson.loads(self.pdu or "{}")
        about: Json = {"type": event["type"], "sender": event["sender"], "content": event["content"]}
        if event["type"] == "m.room.member":
            about["user_is_target"] = event.get("state_key") == self.user_id
        for name, pdu, key in (
            ("sender_display_name", self.member_pdu, "displayname"),
            ("room_name", self.name_pdu, "name"),
            ("room_alias", self.alias_pdu, "alias"),
        ):
            value = orjson.loads(pdu)["content"].get(key) if pdu is not None else None
            if isinstance(value, str) and value:
                about[name] = value
        return about
