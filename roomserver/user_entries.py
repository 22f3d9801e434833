"""Judging the entries of users: receipts, account data, profiles, keys, messages to devices, aliases, the directory, reports.

Invariant: the last value of each goes into its table of record in the transaction of its output; an entry that changes nothing
(an older receipt) is soft-failed, one that cannot stand (a taken alias) is rejected.
"""

from __future__ import annotations

import orjson

from eventlog.safe_text import safe, unsafe
from roomserver.effects import Effects
from roomserver.store import Item, Store


def judge_user_entry(item: Item, store: Store, effects: Effects) -> str:
    """Decides on an entry of a user and adds what follows; returns the verdict."""
    verdict, reason = _decide(item, store, effects)
    position = effects.next_position()
    annotation = None
    if item.entry.type == "presence" and verdict == "a":
        standing = effects.pending("presence", item.entry.sender)
        if standing is not None and standing["changed"] == position:
            # Whom it concerns, so that nobody has to ask; a renewal concerns nobody.
            status = standing["status_msg"]
            annotation = {
                "rooms": store.rooms_of.get(item.entry.sender, []),
                "status_msg": None if status is None else unsafe(status),
            }
    elif entry_changes_devices(item) and verdict == "a":
        # All of them: who is not told goes on encrypting to devices that are not there.
        annotation = {"rooms": store.rooms_of.get(item.entry.sender, [])}
    # Read after the decision: a room that may be no more is not named.
    room = item.room
    effects.output(
        position,
        "u",
        item.entry.id,
        verdict,
        room=None if room is None else room.nid,
        reason=reason,
        annotation=annotation,
    )
    return verdict


def entry_changes_devices(item: Item) -> bool:
    """Whether others have to know: an entry of keys that is not just the user's signatures on keys of others.

    One without keys says that something else changed which is told with them, as a device's name.
    """
    if item.entry.type != "keys" or item.body is None:
        return False
    keys = item.body["keys"]
    return not keys or any(key["usage"] != "signed" for key in keys)


def _decide(item: Item, store: Store, effects: Effects) -> tuple[str, str | None]:
    entry, body, room = item.entry, item.body, item.room
    assert body is not None
    position = effects.position + 1
    if entry.type == "m.receipt":
        if room is None:
            return "r", "The room is not known."
        of_room, timeline = store.timelines.get(body["event_id"], (None, None))
        if of_room != room.nid:
            return "r", "The event is not known in this room."
        key = (room.nid, entry.sender, body["receipt_type"], body.get("thread_id", ""))
        before = store.receipts.get(key)
        if before is not None and timeline is not None and timeline < before:
            return "s", "There is a later receipt."
        store.receipts[key] = timeline
        effects.put(
            "receipts",
            ("room", "user_id", "receipt_type", "thread_id"),
            room=room.nid,
            user_id=entry.sender,
            receipt_type=body["receipt_type"],
            thread_id=body.get("thread_id", ""),
            event_id=body["event_id"],
            event_position=timeline,
            ts=body["ts"],
            position=position,
        )
    elif entry.type == "account_data":
        effects.put(
            "account_data",
            ("user_id", "room_id", "type"),
            user_id=entry.sender,
            room_id=body["room_id"],
            type=safe(body["type"]),
            content=orjson.dumps(body["content"]).decode(),
            position=position,
        )
    elif entry.type == "profile":
        value = body["value"]
        effects.put(
            "profiles",
            ("user_id", "field"),
            user_id=entry.sender,
            field=safe(body["field"]),
            value=None if value is None else orjson.dumps(value).decode(),
            position=position,
        )
    elif entry.type == "presence":
        return _decide_presence(item, store, effects)
    elif entry.type == "keys":
        for key in body["keys"]:
            value = key["key"]
            effects.put(
                "user_keys",
                ("user_id", "usage", "key_id"),
                user_id=entry.sender,
                usage=key["usage"],
                key_id=key["id"],
                key=None if value is None else orjson.dumps(value).decode(),
                position=position,
            )
            if key["usage"] == "device" and value is None:
                effects.put(
                    "gone_devices",
                    ("user_id", "device_id"),
                    user_id=entry.sender,
                    device_id=key["id"],
                    position=position,
                )
        if entry_changes_devices(item):
            effects.put("device_lists", ("user_id",), user_id=entry.sender, position=position)
    elif entry.type == "to_device":
        for user_id, contents in body["messages"].items():
            for device_id, content in contents.items():
                effects.add(
                    "to_device",
                    user_id=user_id,
                    device_id=device_id,
                    sender=entry.sender,
                    type=safe(body["type"]),
                    content=orjson.dumps(content).decode(),
                    position=position,
                )
    elif entry.type == "received":
        effects.add("received", user_id=entry.sender, device_id=body["device_id"], upto=body["upto"])
    elif entry.type == "key_stock":
        # The keys themselves are no part of the log: whoever shows how many there are counts them again.
        pass
    elif entry.type == "alias":
        alias, room_id = body["alias"], body["room_id"]
        standing = store.aliases.get(alias)
        if room_id is not None and standing is not None and standing != body.get("from"):
            return "r", "The alias is taken."
        if room_id is not None and standing is None and body.get("from") is not None:
            return "r", "There is no such alias to move."
        if room_id is None and standing is None:
            return "r", "There is no such alias."
        if room_id is None:
            del store.aliases[alias]
        else:
            store.aliases[alias] = room_id
        effects.put("aliases", ("alias",), alias=alias, room_id=room_id, creator=entry.sender, position=position)
    elif entry.type == "directory":
        effects.put(
            "directory",
            ("room_id",),
            room_id=body["room_id"],
            published=bool(body["published"]),
            position=position,
        )
    elif entry.type == "erase":
        effects.put("erased", ("user_id",), user_id=entry.sender, position=position)
    elif entry.type == "report":
        effects.add(
            "reports",
            entry=entry.id,
            reporter=entry.sender,
            room_id=body.get("room_id"),
            event_id=body.get("event_id"),
            user_id=body.get("user_id"),
            reason=safe(body["reason"]),
            position=position,
        )
    elif entry.type == "scrub":
        # Something has left the log: what is remembered of it is to be read again.
        if room is not None:
            store.rooms.forget(room.room_id)
            item.room = None
    elif entry.type == "forget":
        if room is None or _membership(room.nid, entry.sender, store, effects) not in ("l", "b"):
            return "r", "The user has not left the room."
        effects.put("forgotten", ("user_id", "room"), user_id=entry.sender, room=room.nid)
    else:
        return "r", f"Entries of type {entry.type} are not known."
    return "a", None


def _decide_presence(item: Item, store: Store, effects: Effects) -> tuple[str, str | None]:
    entry, body, position = item.entry, item.body, effects.position + 1
    assert body is not None
    before = effects.pending("presence", entry.sender) or store.presences.get(entry.sender)
    expected = body.get("expected")
    if expected is not None and expected != (0 if before is None else before["position"]):
        return "s", "The presence has changed meanwhile."
    status = None if before is None else before["status_msg"]
    if "status_msg" in body:
        status = None if body["status_msg"] is None else safe(body["status_msg"])
    unchanged = before is not None and (before["presence"], before["status_msg"]) == (body["presence"], status)
    effects.put(
        "presence",
        ("user_id",),
        user_id=entry.sender,
        presence=body["presence"],
        status_msg=status,
        active_at=body["active_at"],
        until=body["until"],
        by=body["by"],
        changed=before["changed"] if before is not None and unchanged else position,
        position=position,
    )
    return "a", None


def _membership(room: int, user_id: str, store: Store, effects: Effects) -> str | None:
    """The user's membership as this batch leaves it."""
    changed = effects.pending("memberships", user_id, room)
    return store.standing.get((room, user_id)) if changed is None else changed["membership"]
