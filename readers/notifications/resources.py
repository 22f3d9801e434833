"""GET /notifications: what notified the user lately.

Invariant: shown is only what the user may still see, of rooms they are in or invited to. Source: client-server API, "Listing
notifications".
"""

from __future__ import annotations

from typing import Final, Protocol

from falcon.asgi import Request, Response

from eventlog.pools import Pool
from matrix.errors import invalid_param
from readers.follower import wait_until_current
from readers.notifications.projection import INVITATION, NotificationsProjection
from readers.notifications.rooms import SQL
from readers.rooms.chosen import Chosen
from readers.rooms.parameters import Parameters
from readers.rooms.responses import JSON, join, quoted
from readers.rooms.rows import Forms, Row
from readers.rooms.timeline import Timelines

LIMIT: Final = 20
MOST: Final = 100
FRESH_SECONDS: Final = 2.0
"""How long a request waits for the projection to have taken in what happened before it."""
MOST_FORM_BYTES: Final = 1 << 20
LATEST: Final = (1 << 63) - 1


class NotificationList:
    """GET /notifications."""

    def __init__(self, timelines: Timelines) -> None:
        self._timelines = timelines

    async def on_get(self, req: Request, resp: Response) -> None:
        """The latest notifications, a page at a time."""
        parameters = Parameters(req)
        limit = parameters.limit(LIMIT, MOST)
        before = _entry_of(parameters.text("from"))
        session = req.context.session
        wanted = {
            "user_id": session.user_id,
            "before": before,
            # "Supply highlight to return only events where the notification had the highlight tweak set."
            "highlights": parameters.text("only") == "highlight",
            "most": limit,
        }
        timelines = self._timelines
        async with timelines.pool.connection() as connection:
            await wait_until_current(connection, NotificationsProjection.name, FRESH_SECONDS)
            found = await (await connection.execute(SQL["page"], wanted)).fetchall()
            chosen = Chosen(timelines, session.user_id)
            # An invitation is told, in stripped form, to whom the room's history is closed.
            invitations = {entry for entry, _, thread, *_ in found if thread == INVITATION}
            seen = await chosen.see(connection, {entry: room_id for entry, room_id, *_ in found}, invitations)
            forms: dict[str, bytes] = {}
            for access in chosen.accesses.values():
                rows: list[Row] = [row for row, of_room in seen.values() if of_room is access]
                rendered = await timelines.render(connection, access, rows, session.device_id) if rows else []
                forms.update(zip((row.event_id for row in rows), rendered, strict=True))
        notifications = [
            b'{"actions":%b,"event":%b,"read":%b,"room_id":%b,"ts":%d}'
            % (
                actions.encode(),
                forms[seen[entry][0].event_id],
                b"true" if read else b"false",
                quoted(room_id),
                # "The unix timestamp at which the event notification was sent": an entry's id is the time it came.
                entry >> 20,
            )
            for entry, room_id, _, actions, read in found
            if entry in seen
        ]
        ending = b',"next_token":%b' % quoted(f"n{found[-1][0]}") if len(found) == limit else b""
        resp.data = b'{"notifications":%b%b}' % (join(notifications), ending)
        resp.content_type = JSON


def _entry_of(token: str | None) -> int:
    """The entry before which a page ends; M_INVALID_PARAM for what is no token of this server."""
    if token is None:
        return LATEST
    number = token.removeprefix("n")
    if token == number or not number.isascii() or not number.isdecimal() or len(number) > 19 or int(number) > LATEST:
        raise invalid_param("from is not a token of this server.")
    return int(number)


class Routes(Protocol):
    """What resources are mounted on: falcon's application, or what collects routes for it."""

    def add_route(self, template: str, resource: object, *, suffix: str | None = None) -> None:
        """Mounts the responders with that suffix."""


def add_routes(app: Routes, pool: Pool) -> None:
    """Mounts the endpoint. `pool` is of the role reader, on the primary."""
    timelines = Timelines(pool, Forms(MOST_FORM_BYTES))
    app.add_route("/_matrix/client/v3/notifications", NotificationList(timelines))
