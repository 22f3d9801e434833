"""How often one caller may do what: token buckets in the memory of this process.

Invariant: at most `MOST_BUCKETS` buckets exist; the one used longest ago is forgotten first, which only ever lets more through.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from time import monotonic
from typing import Literal

from eventlog.settings import RateLimits as Rates
from matrix.errors import limit_exceeded

Action = Literal["message", "room", "join", "invite", "login", "registration", "email", "upload", "preview", "request"]

MOST_BUCKETS = 50_000


@lru_cache(maxsize=1_000)
def caller_at(address: str) -> str:
    """Whom requests from an address are counted for: of IPv6 the /64, all addresses of which one subscriber can use."""
    if ":" not in address:
        return address
    try:
        return IPv6Address(address.partition("%")[0]).packed[:8].hex(":", 2)
    except AddressValueError:
        return address


class RateLimits:
    """Buckets by action and caller. A bucket holds `burst` and refills at `per_second`."""

    def __init__(self, rates: Rates) -> None:
        self._enabled = rates.enabled
        self._rates: dict[str, tuple[float, int]] = {
            "message": (rates.message_per_second, rates.message_burst),
            "room": (rates.room_per_second, rates.room_burst),
            "join": (rates.join_per_second, rates.join_burst),
            "invite": (rates.invite_per_second, rates.invite_burst),
            "login": (rates.login_per_second, rates.login_burst),
            "registration": (rates.registration_per_second, rates.registration_burst),
            "email": (rates.email_per_second, rates.email_burst),
            "upload": (rates.upload_per_second, rates.upload_burst),
            "preview": (rates.preview_per_second, rates.preview_burst),
            "request": (rates.request_per_second, rates.request_burst),
        }
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, action: Action, caller: str, count: int = 1) -> None:
        """Takes from the caller's bucket; M_LIMIT_EXCEEDED, with the wait, when it is empty.

        More than a whole bucket at once can be had from a full one, and then has to be paid off.
        """
        if self._enabled:
            self._take(action, caller, count, check=True)

    def check(self, action: Action, caller: str) -> None:
        """M_LIMIT_EXCEEDED when the bucket is empty; takes nothing."""
        if self._enabled:
            self._take(action, caller, 0, check=True)

    def charge(self, action: Action, caller: str) -> None:
        """Takes without a refusal: the next `check` may refuse."""
        if self._enabled:
            self._take(action, caller, 1, check=False)

    def _take(self, action: Action, caller: str, count: int, *, check: bool) -> None:
        per_second, burst = self._rates[action]
        now = monotonic()
        level, at = self._buckets.pop((action, caller), (float(burst), now))
        level = min(burst, level + (now - at) * per_second)
        wanted = min(max(count, 1), burst)
        allowed = level >= wanted
        if (allowed or not check) and count:
            level -= count
        self._buckets[action, caller] = (level, now)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if check and not allowed:
            raise limit_exceeded(max(1, round((wanted - level) / per_second * 1000)))
