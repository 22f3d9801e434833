"""Users whose clients sync here: their rooms, and what lately concerned them alone.

Invariant: a user who is here has their memberships exactly as of the applied positions, and all changes of them and of their
account data since `floors`. Users nobody asked for in a while are forgotten; the tables know them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from matrix.invite_permission import InvitePermission
from matrix.push_evaluation import DEFAULT_EVALUATOR, Evaluator
from readers.sync.counters import Counter

if TYPE_CHECKING:
    from readers.sync.counters import Counter
    from readers.sync.presence import Presence

MOST_USERS: Final = 20_000
"""Users kept."""
MOST_CHANGES: Final = 200
"""Membership changes and account data entries kept per user."""
MOST_LISTS: Final = 1_000
"""Other users whose devices changed, or who left a room, kept per user."""
MOST_PRESENCES: Final = 1_000
"""Changes of presence kept per user."""


class Stay(NamedTuple):
    """A membership: the room, the letter (j i l b k) and the position since which it is so.

    `joined_at` and `left_at` are where the present or last stay as a member began, and where the last one ended; None: never.
    """

    room_id: str
    shard: int
    membership: str
    position: int
    joined_at: int | None
    left_at: int | None = None
    forgotten: bool = False


class Change(NamedTuple):
    """A membership that changed at a position; `old` is None when there was none. A change may be j to j: a new profile."""

    shard: int
    position: int
    nid: int
    room_id: str
    new: str
    old: str | None


class AccountData(NamedTuple):
    """Account data as an output brought it; `room_id` is empty for global, `content` a JSON object."""

    shard: int
    position: int
    room_id: str
    type: str
    content: bytes


class Message(NamedTuple):
    """A message to a device, by its NUL-safe id, as an event in JSON."""

    shard: int
    position: int
    device_id: str
    event: bytes


class User:
    """One active user."""

    __slots__ = (
        "account_data",
        "changes",
        "evaluator",
        "floors",
        "heard_since",
        "ignored",
        "inbox",
        "inbox_since",
        "invite_settings",
        "invites",
        "last",
        "lists",
        "lists_last",
        "lists_since",
        "loaded",
        "nudged_at",
        "partings",
        "presences",
        "rooms",
        "stock_changed",
        "stock_changes",
        "stocks",
        "unread",
        "user_id",
        "waiters",
    )

    def __init__(self, user_id: str, positions: list[int]) -> None:
        self.user_id = user_id
        self.floors = list(positions)
        """Per shard: everything that concerned the user after this position is known here."""
        self.last = list(positions)
        """Per shard: the position of what last concerned the user."""
        self.rooms: dict[int, Stay] = {}
        self.changes: deque[Change] = deque()
        self.account_data: deque[AccountData] = deque()
        self.presences: dict[str, Presence] = {}
        """By user, the last change of presence of those who share a room, since `heard_since`, positions by shard."""
        self.heard_since = list(positions)
        self.inbox: deque[Message] = deque()
        """Messages to the user's devices that came after `inbox_since`, positions by shard, and are not known to have arrived."""
        self.inbox_since = list(positions)
        self.lists: dict[str, tuple[int, int]] = {}
        """By user, shard and position of what last changed in whom this user shares rooms with, and in their devices."""
        self.partings: dict[str, tuple[int, int]] = {}
        """The same of those who left a room that this user is in."""
        self.lists_since = list(positions)
        self.lists_last = list(positions)
        """Per shard: the position of the last of either."""
        self.stocks: dict[str, bytes] | None = None
        """By device, NUL-safe, the members of a response that say which keys are left; None: to be counted."""
        self.stock_changed: dict[str, tuple[int, int]] = {}
        """By device, shard and position of what last changed its stock."""
        self.stock_changes = 0
        """How often what `stocks` says has become old."""
        self.ignored: frozenset[str] = frozenset()
        self.invites = InvitePermission()
        self.invite_settings: dict[str, Any] = {}
        """The account data that `invites` is made of, by type."""
        self.evaluator: Evaluator = DEFAULT_EVALUATOR
        self.unread: dict[int, Counter] = {}
        self.loaded: asyncio.Future[None] | None = None
        """Done when memberships and the rest have been read from the tables."""
        self.waiters: set[asyncio.Future[None]] = set()
        self.nudged_at = 0.0
        """time.monotonic() when something without a position last concerned the user: typing that ran out."""

    def add_change(self, change: Change) -> None:
        """Notes a membership change and lets the oldest go."""
        self.changes.append(change)
        if len(self.changes) > MOST_CHANGES:
            gone = self.changes.popleft()
            self.floors[gone.shard] = max(self.floors[gone.shard], gone.position)

    def add_account_data(self, entry: AccountData) -> None:
        """Notes account data and lets the oldest go."""
        self.account_data.append(entry)
        if len(self.account_data) > MOST_CHANGES:
            gone = self.account_data.popleft()
            self.floors[gone.shard] = max(self.floors[gone.shard], gone.position)

    def add_presence(self, presence: Presence) -> None:
        """Notes that somebody's presence has changed and lets the longest unchanged go."""
        self.presences.pop(presence.user_id, None)
        self.presences[presence.user_id] = presence
        if len(self.presences) > MOST_PRESENCES:
            gone = self.presences.pop(next(iter(self.presences)))
            self.heard_since[gone.shard] = max(self.heard_since[gone.shard], gone.position)

    def add_message(self, message: Message) -> None:
        """Notes a message to a device and lets the oldest go."""
        self.inbox.append(message)
        if len(self.inbox) > MOST_CHANGES:
            gone = self.inbox.popleft()
            self.inbox_since[gone.shard] = max(self.inbox_since[gone.shard], gone.position)

    def add_list(self, other: str, shard: int, position: int, *, parted: bool = False) -> None:
        """Notes that a user's devices changed, or who shares a room with this one, and lets the longest unchanged go."""
        self.lists_last[shard] = max(self.lists_last[shard], position)
        noted = self.partings if parted else self.lists
        noted.pop(other, None)
        noted[other] = (shard, position)
        if len(noted) > MOST_LISTS:
            shard, position = noted.pop(next(iter(noted)))
            self.lists_since[shard] = max(self.lists_since[shard], position)

    def forget_stocks(self) -> None:
        """Lets keys be counted again, also those that are being counted now."""
        self.stocks = None
        self.stock_changes += 1


class Users:
    """Active users by id, and by the rooms they are joined to."""

    def __init__(self) -> None:
        self._users: OrderedDict[str, User] = OrderedDict()
        self._joined: dict[int, set[User]] = {}

    def __len__(self) -> int:
        return len(self._users)

    def __iter__(self) -> Iterator[User]:
        return iter(self._users.values())

    def get(self, user_id: str) -> User | None:
        """The user if active."""
        return self._users.get(user_id)

    def joined(self, nid: int) -> set[User]:
        """Active users who are joined to a room; not to be changed."""
        return self._joined.get(nid) or _NOBODY

    def begin(self, user_id: str, positions: list[int]) -> User:
        """Makes a user active as of the applied positions; `loaded` is for the caller to set."""
        user = self._users[user_id] = User(user_id, positions)
        return user

    def touch(self, user: User) -> None:
        """Somebody asks for the user."""
        if self._users.get(user.user_id) is user:
            self._users.move_to_end(user.user_id)

    def place(self, user: User, nid: int, stay: Stay) -> None:
        """Says where a user stands with a room."""
        user.rooms[nid] = stay
        if stay.membership == "j":
            self._joined.setdefault(nid, set()).add(user)
        else:
            self._leave(user, nid)

    def shrink(self) -> None:
        """Forgets users nobody asked for in longest, until the rest is not too many."""
        while len(self._users) > MOST_USERS:
            for user in self._users.values():
                if not user.waiters:
                    break
            else:
                return
            self.forget(user)

    def forget(self, user: User) -> None:
        """Makes a user inactive."""
        if self._users.get(user.user_id) is user:
            del self._users[user.user_id]
        for nid in user.rooms:
            self._leave(user, nid)

    def _leave(self, user: User, nid: int) -> None:
        members = self._joined.get(nid)
        if members is not None:
            members.discard(user)
            if not members:
                del self._joined[nid]


_NOBODY: Final[set[User]] = set()
