"""Tokens that clients keep: what was given out is read again, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.tokens import SyncToken, TimelineToken

POSITION = st.integers(0, 10**18 - 1)
POSITIONS = st.lists(POSITION, min_size=1, max_size=4).map(tuple)


@given(st.from_regex(r"[0-9a-z]{1,32}", fullmatch=True), POSITIONS, st.none() | POSITIONS)
def test_a_sync_token_is_read_as_it_was_written(
    epoch: str, positions: tuple[int, ...], inbox: tuple[int, ...] | None
) -> None:
    token = SyncToken(epoch, positions, inbox)
    assert SyncToken.parse(str(token)) == token


@given(st.integers(1 - 10**18, 10**18 - 1))
def test_a_timeline_token_is_read_as_it_was_written(order: int) -> None:
    assert TimelineToken.parse(str(TimelineToken(order))) == TimelineToken(order)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "w1_e",
        "w1_e_",
        "w1__1",
        "w1_E_1",
        "w2_e_1",
        "w1_e_01",
        "w1_e_-1",
        "w1_e_1.",
        "w1_e_1_",
        "w1_e_1_2_3",
        "w1_e_1\n",
        " w1_e_1",
        "w1_e_1000000000000000000",
        "w1_e_\u0661",
        f"w1_{'e' * 33}_1",
        f"w1_e_{'.'.join(['1'] * 257)}",
        "t1",
    ],
)
def test_what_was_not_given_out_is_no_sync_token(text: str) -> None:
    with pytest.raises(ValueError, match="not a sync token"):
        SyncToken.parse(text)


@pytest.mark.parametrize(
    "text", ["", "t", "t-", "t-0", "t01", "t+1", "t1\n", "t1.0", " t1", "t1000000000000000000", "t\u0661", "w1_e_1"]
)
def test_what_was_not_given_out_is_no_timeline_token(text: str) -> None:
    with pytest.raises(ValueError, match="not a timeline token"):
        TimelineToken.parse(text)
