"""Password hashes: argon2id, computed off the event loop.

Invariant: no more than `THREADS` hashes are computed and `WAITING` wait at once; whoever comes beyond that is sent away with
429, so that a flood of logins costs neither memory nor the latency of messages. A check against no hash takes as long as one
against a hash, so that nobody learns from the time which accounts exist.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from matrix.errors import MatrixError, invalid_param, limit_exceeded

THREADS = 2
WAITING = 64
# OWASP's password storage recommendation for argon2id: 19 MiB, two passes, one lane.
MEMORY_KIB = 19_456
PASSES = 2
MOST_PASSWORD_CHARACTERS = 4096


def check_password(password: str | None) -> str | None:
    """The password, if it can be one."""
    if password == "":
        raise MatrixError(400, "M_WEAK_PASSWORD", "The password is empty.")
    if password is not None and len(password) > MOST_PASSWORD_CHARACTERS:
        raise invalid_param(f"A password may have {MOST_PASSWORD_CHARACTERS} characters.")
    return password


class Passwords:
    """Hashes and checks passwords in a few threads of its own, which start when first needed."""

    def __init__(self, *, memory_kib: int = MEMORY_KIB, passes: int = PASSES) -> None:
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._under_way = 0
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """The argon2id hash in its PHC string form; M_LIMIT_EXCEEDED when too many wait."""
        return await self._run(password, None)

    async def matches(self, password: str, stored: str | None) -> bool:
        """Whether the password is the stored hash's; False, after as long a time, when there is none."""
        return bool(await self._run(password, stored or ""))

    def close(self) -> None:
        """Ends the threads; what runs is waited for."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _run(self, password: str, stored: str | None) -> str:
        if self._under_way >= WAITING:
            raise limit_exceeded(1000)
        self._under_way += 1
        try:
            work = self._hash if stored is None else self._verify
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, password, stored or "")
        finally:
            self._under_way -= 1

    def _hash(self, password: str, _: str) -> str:
        return self._hasher.hash(password)

    def _verify(self, password: str, stored: str) -> str:
        if not stored and self._decoy is None:
            self._decoy = self._hasher.hash("")
        try:
            self._hasher.verify(stored or self._decoy or "", password)
        except (VerificationError, InvalidHashError):
            return ""
        return stored
