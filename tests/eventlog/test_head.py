"""The committed head moves by notices that follow on what it knows, and looks for itself whenever one does not."""

from __future__ import annotations

import asyncio

import pytest

from eventlog import head as module
from eventlog.head import Head, Verdict
from eventlog.notices import accepted_list

ENTRIES = [50, 7, 60]
SENDER = 99


class Followed:
    """A head of two shards that nothing looks at, and how often it told that it moved."""

    def __init__(self, *, want_verdicts: bool = True) -> None:
        self.head = Head("", want_verdicts=want_verdicts)
        self.head.positions, self.head.epoch = [10, 20], "now"
        self.head._senders = {0: SENDER, 1: SENDER}
        self.moves = 0
        self.head.watch(self.moved)

    def moved(self) -> None:
        self.moves += 1

    def hear(self, payload: str, sender: int = SENDER) -> bool:
        """Whether the head moved by a notice; `looks` is then whether it is going to look."""
        before, self.head._woken = self.moves, asyncio.Event()
        self.head._hear(payload, sender)
        return self.moves > before

    @property
    def looks(self) -> bool:
        return self.head._woken.is_set()


def notice(shard: int, before: int, after: int, epoch: str = "now", entries: list[int] | None = None) -> str:
    words = [f"{shard} {before} {after} {epoch}", *([] if entries is None else [accepted_list(entries) or ""])]
    return " ".join(words)


async def test_a_notice_that_follows_on_moves_the_head_and_brings_its_verdicts() -> None:
    followed = Followed()
    waiting = followed.head.expect(7)
    assert followed.hear(notice(1, 20, 23, entries=ENTRIES)) and not followed.looks
    assert followed.head.positions == [10, 23] and followed.head.fresh
    async with asyncio.timeout(30):
        assert await waiting == Verdict(22, 7, "a", None)
    assert followed.head.known(50) == Verdict(21, 50, "a", None)
    assert followed.head.known(60) == Verdict(23, 60, "a", None)
    assert await followed.head.verdict(60, 30) == Verdict(23, 60, "a", None)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        notice(1, 21, 24, entries=ENTRIES),
        notice(1, 19, 22, entries=ENTRIES),
        notice(1, 20, 23, "then", ENTRIES),
        notice(2, 20, 23, entries=ENTRIES),
        notice(1, 20, 23),
    ],
)
async def test_a_notice_that_does_not_follow_on_moves_nothing_and_is_the_reason_to_look(payload: str) -> None:
    followed = Followed()
    assert not followed.hear(payload) and followed.looks
    await asyncio.sleep(0)
    assert followed.head.positions == [10, 20] and followed.head.known(50) is None


async def test_a_notice_of_a_session_that_is_not_the_shards_room_server_is_only_the_reason_to_look() -> None:
    followed = Followed()
    assert not followed.hear(notice(1, 20, 23, entries=ENTRIES), SENDER + 1) and followed.looks
    assert followed.head._strangers == {SENDER + 1: 1}
    followed.head._senders[0] = SENDER + 1
    assert not followed.hear(notice(1, 20, 23, entries=ENTRIES), SENDER + 1)
    assert followed.head.positions == [10, 20]


async def test_a_notice_of_what_is_known_is_no_reason_to_look() -> None:
    followed = Followed()
    assert not followed.hear(notice(1, 17, 20, entries=ENTRIES)) and not followed.looks
    assert followed.head.positions == [10, 20]


async def test_who_wants_no_verdicts_moves_by_notices_without_them() -> None:
    followed = Followed(want_verdicts=False)
    assert followed.hear(notice(1, 20, 23)) and not followed.looks
    assert followed.hear(notice(0, 10, 13, entries=ENTRIES))
    await asyncio.sleep(0)
    assert followed.head.positions == [13, 23] and followed.head.known(50) is None


async def test_verdicts_are_forgotten_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    followed = Followed()
    followed.hear(notice(1, 20, 23, entries=ENTRIES))
    await asyncio.sleep(0)
    assert [followed.head.known(entry) is not None for entry in ENTRIES] == [False, True, True]
