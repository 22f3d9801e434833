"""Rooms a user is invited to or knocks on, as stripped state.

Source: client-server API, "Stripped state". Of a room this server is not in, the state that came with the invite is shown, reduced
to the stripped members: "Servers cannot pass through what they receive over federation".
"""

from __future__ import annotations

from typing import Any

import orjson
from psycopg import AsyncConnection

from matrix.invite_permission import Permission
from readers.sync.event_bytes import stripped_event
from readers.sync.events import Events
from readers.sync.feed import SQL
from readers.sync.outputs import Output
from readers.sync.response import room
from readers.sync.users import Stay, User

STRIPPED = ("content", "sender", "state_key", "type")


async def render_invites(
    connection: AsyncConnection, events: Events, user: User, stays: dict[int, Stay], now: tuple[int, ...]
) -> tuple[list[bytes], list[bytes]]:
    """The sections `invite` and `knock` for the rooms given; invites of ignored and blocked users are left out."""
    invite: list[bytes] = []
    knock: list[bytes] = []
    if not stays:
        return invite, knock
    cursor = await connection.execute(SQL["invitations"], {"user_id": user.user_id, "rooms": list(stays)})
    senders = {nid: (sender, entry) for nid, sender, entry in await cursor.fetchall()}
    rooms = [nid for nid in stays if nid in senders]
    cursor = await connection.execute(
        SQL["stripped_state"],
        {
            "rooms": rooms,
            "at": [now[stays[nid].shard] for nid in rooms],
            "senders": [senders[nid][0] for nid in rooms],
            "user_id": user.user_id,
        },
    )
    rows = await cursor.fetchall()
    found = await events.fetch(connection, {row[1] for row in rows} | {entry for _, entry in senders.values()})
    shown: dict[int, list[Output]] = {nid: [] for nid in rooms}
    for i, entry in rows:
        if entry in found:
            shown[rooms[i - 1]].append(found[entry])
    for nid in rooms:
        sender, entry = senders[nid]
        stay = stays[nid]
        if stay.membership == "i" and (sender in user.ignored or user.invites.of(sender) is not Permission.ALLOW):
            # "Servers must not send room invites from ignored users to clients", and likewise those of whom the user blocks.
            continue
        state = [stripped_event(output.members) for output in shown[nid]]
        if not any(output.type == "m.room.create" for output in shown[nid]) and entry in found:
            state = _carried(found[entry]) or state
        name, section = (b"invite_state", invite) if stay.membership == "i" else (b"knock_state", knock)
        section.append(room(stay.room_id, [b'"%b":{"events":[%b]}' % (name, b",".join(state))]))
    return invite, knock


def _carried(member: Output) -> list[bytes]:
    """The stripped state that came with an invite or knock, and that event itself."""
    unsigned = orjson.loads(member.json).get("unsigned")
    carried: Any = None
    if isinstance(unsigned, dict):
        carried = unsigned.get("invite_room_state", unsigned.get("knock_room_state"))
    if not isinstance(carried, list):
        return []
    events = [
        orjson.dumps({key: event[key] for key in STRIPPED})
        for event in carried
        if isinstance(event, dict) and all(key in event for key in STRIPPED)
    ]
    return [*events, stripped_event(member.members)]
