"""Rooms of a response, put together from what the caches and the tables gave.

Invariant: what is the same for several users is rendered once and kept with its room; what is one user's own (transaction ids,
private receipts, account data) is put beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from readers.sync import response
from readers.sync.event_bytes import pick_fields
from readers.sync.incremental import Plan, Recent
from readers.sync.outputs import Output
from readers.sync.request import Shape
from readers.sync.rooms import MOST_FRAGMENTS, Receipt
from readers.sync.users import AccountData, User
from readers.sync.views import RoomView

PUBLIC: Final = "m.read"


@dataclass(slots=True)
class Sections:
    """Rendered rooms, each `"room id":{…}`."""

    join: list[bytes] = field(default_factory=list)
    leave: list[bytes] = field(default_factory=list)


class Renderer:
    """Renders rooms for one user's device in one shape."""

    def __init__(self, user: User, device_id: str, shape: Shape) -> None:
        self._user = user
        self._device_id = device_id
        self._shape = shape

    def render(self, plan: Plan, views: list[RoomView], account_data: Iterable[AccountData], whole: bool) -> Sections:
        """The sections `join` and `leave`; with `whole` also of rooms about which there is no news."""
        sections = Sections()
        of_rooms: dict[str, dict[str, bytes]] = {}
        chosen = self._shape.filter.room
        for entry in account_data:
            room_id = entry.room_id
            if not room_id or not chosen.takes_room(room_id) or not chosen.account_data.takes_room(room_id):
                continue
            if chosen.account_data.matches(entry.type):
                of_rooms.setdefault(entry.room_id, {})[entry.type] = entry.content
        for recent in plan.recent:
            data = of_rooms.pop(recent.room.room_id, None)
            members = self._recent(recent, plan.typing.get(recent.nid), data)
            if members:
                sections.join.append(response.room(recent.room.room_id, [*members, *self._unread(recent.nid)]))
        for view in views:
            data = of_rooms.pop(view.ask.room_id, None)
            members = self._view(view, plan.typing.get(view.ask.nid), data, whole)
            if members and view.ask.left:
                sections.leave.append(response.room(view.ask.room_id, members))
            elif members:
                sections.join.append(response.room(view.ask.room_id, [*members, *self._unread(view.ask.nid)]))
        if of_rooms:
            joined = {stay.room_id: stay.shard for stay in self._user.rooms.values() if stay.membership == "j"}
            for room_id, data in of_rooms.items():
                if room_id in joined:
                    history = self._history([], False, plan.now[joined[room_id]], [])
                    sections.join.append(response.room(room_id, [history, *self._rest(room_id, [], None, data)]))
        return sections

    def _recent(self, recent: Recent, typing: list[str] | None, data: dict[str, bytes] | None) -> list[bytes]:
        rest = self._rest(recent.room.room_id, recent.receipts, typing, data, recent)
        if not rest and any(receipt.user_id == self._user.user_id for receipt in recent.receipts):
            # The counts may have changed, even if the filter leaves out the receipt that changed them.
            rest.append(b'"ephemeral":' + response.batch([]))
        timeline = recent.timeline
        if not timeline:
            return [self._history([], False, recent.room.last, []), *rest] if rest else []
        if recent.joined is not None or recent.invited is not None or recent.heroes is not None:
            rest.append(response.summary(recent.joined, recent.invited, recent.heroes))
        user_id, device_id, ignored = self._user.user_id, self._device_id, self._user.ignored
        own = any(output.txn_id is not None and output.transaction_of(user_id, device_id) for output in timeline)
        if not own and not ignored and self._shape.plain:
            told = tuple([member.entry for member in recent.members])
            key = (timeline[0].position, timeline[-1].position, self._shape.key, told)
            history = recent.room.fragments.get(key)
            if history is None:
                history = self._history(
                    [output.client("join") for output in timeline],
                    False,
                    timeline[0].position - 1,
                    [self._event(output, None) for output in _beside(recent, self._shape)],
                )
                keep(recent.room.fragments, key, history)
            return [history, *rest]
        shown = [output for output in timeline if self._takes(recent.room.room_id, output)]
        beside = [output for output in _beside(recent, self._shape) if self._takes_state(recent.room.room_id, output)]
        if not shown and not beside:
            return [self._history([], False, recent.room.last, []), *rest] if rest else []
        return [
            self._history(
                [self._event(output, "join") for output in shown],
                False,
                (shown or timeline)[0].position - 1,
                [self._event(output, None) for output in beside],
            ),
            *rest,
        ]

    def _view(
        self, view: RoomView, typing: list[str] | None, data: dict[str, bytes] | None, whole: bool
    ) -> list[bytes]:
        rest = self._rest(view.ask.room_id, view.receipts, typing, data)
        if view.joined is not None:
            rest.append(response.summary(view.joined, view.invited, view.heroes))
        if not (view.timeline or view.state or view.limited or view.ask.left or rest or whole):
            return []
        # The membership "at the time of the event" is not looked up for state that is not in the timeline: it may be left out.
        state = [self._event(output, None) for output in view.state]
        bundles, room_id = view.bundles, view.ask.room_id
        timeline = [
            self._event(output, word, b"" if bundles is None else bundles.relations(output.event_id, room_id))
            for output, word in view.timeline
        ]
        return [self._history(timeline, view.limited, view.prev_batch, state), *rest]

    def _history(self, timeline: Iterable[bytes], limited: bool, prev_batch: int, state: Iterable[bytes]) -> bytes:
        return response.history(
            timeline, limited=limited, prev_batch=prev_batch, state=state, state_after=self._shape.state_after
        )

    def _rest(
        self,
        room_id: str,
        receipts: list[Receipt],
        typing: list[str] | None,
        data: dict[str, bytes] | None,
        recent: Recent | None = None,
    ) -> list[bytes]:
        """The members `ephemeral` and `account_data`, where there are any."""
        rest = []
        ephemeral = self._shape.filter.room.ephemeral
        events: list[bytes] = []
        if (typing is not None or receipts) and ephemeral.takes_room(room_id):
            if typing is not None and ephemeral.matches("m.typing"):
                events.append(response.typing_event(typing))
            if receipts and ephemeral.matches("m.receipt"):
                events += self._receipts(receipts, recent)
        if events:
            rest.append(b'"ephemeral":' + response.batch(events))
        if data:
            rest.append(
                b'"account_data":' + response.batch([response.account_data_event(*item) for item in data.items()])
            )
        return rest

    def _unread(self, nid: int) -> list[bytes]:
        counter = self._user.unread.get(nid)
        return [] if counter is None else [counter.render(self._shape.filter.unread_thread_notifications)]

    def _receipts(self, receipts: list[Receipt], recent: Recent | None) -> list[bytes]:
        # "Servers MUST NOT send the m.read.private receipt to any other user than the one which originally sent it."
        user_id = self._user.user_id
        shown = [r for r in receipts if r.receipt_type == PUBLIC or r.user_id == user_id]
        if recent is None or not shown or any(r.receipt_type != PUBLIC for r in shown):
            return response.receipt_events(shown)
        key = (shown[0].position, shown[-1].position, 0)
        events = recent.room.fragments.get(key)
        if events is None:
            events = b",".join(response.receipt_events(shown))
            keep(recent.room.fragments, key, events)
        return [events]

    def _event(self, output: Output, membership: str | None, relations: bytes = b"") -> bytes:
        chosen = self._shape.filter
        if chosen.event_format == "federation":
            return output.federation()
        event = output.client(membership, output.transaction_of(self._user.user_id, self._device_id), relations)
        return event if chosen.event_fields is None else pick_fields(event, chosen.event_fields)

    def _takes(self, room_id: str, output: Output) -> bool:
        if output.state_key is None and output.sender in self._user.ignored:
            return False
        chosen = self._shape.filter.room.timeline
        return chosen.matches_in_room(room_id, output.type, output.sender, output.has_url)

    def _takes_state(self, room_id: str, output: Output) -> bool:
        chosen = self._shape.filter.room.state
        return chosen.matches_in_room(room_id, output.type, output.sender, output.has_url)


def _beside(recent: Recent, shape: Shape) -> list[Output]:
    """The state told beside a timeline: members loaded lazily, and with use_state_after what changed in the timeline."""
    if not shape.state_after:
        return recent.members
    standing: dict[tuple[str, str], Output] = {
        (output.type, output.state_key or ""): output for output in recent.members
    }
    for output in recent.timeline:
        if output.state_key is not None and output.notes.get("current"):
            standing[output.type, output.state_key] = output
    return list(standing.values())


def keep(fragments: dict[Any, bytes], key: Any, value: bytes) -> None:
    """Keeps a rendered fragment; the oldest goes."""
    fragments[key] = value
    if len(fragments) > MOST_FRAGMENTS:
        del fragments[next(iter(fragments))]
