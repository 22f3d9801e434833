"""What the benchmark says of wrong counts and of targets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bin.benchmark.observer import differences
from bin.benchmark.report import lines
from bin.benchmark.row import Figure, Sample, percentile
from bin.benchmark.run import Outcome, Results

SENT = {"!r": [["$1", "$3"], ["$2", "$4"]]}
ORDER = ["$1", "$2", "$3", "$4"]


def test_the_same_events_once_and_in_one_order_are_no_difference() -> None:
    assert differences(SENT, {"!r": ORDER}, {"!r": list(ORDER)}, 0) == []


@pytest.mark.parametrize(
    ("live", "late", "failed", "fault"),
    [
        (["$1", "$2", "$3"], ORDER, 0, "1 acknowledged events never reached the live"),
        (ORDER, ["$1", "$2", "$3"], 0, "1 acknowledged events never reached the late"),
        ([*ORDER, "$4"], ORDER, 0, "1 events reached the live observer twice"),
        ([*ORDER, "$5"], [*ORDER, "$5"], 0, "1 events at the live observer were never acknowledged"),
        (["$2", "$1", "$3", "$4"], ORDER, 0, "disagree on the order"),
        (["$3", "$1", "$2", "$4"], ["$3", "$1", "$2", "$4"], 0, "one sender's events out of order"),
    ],
)
def test_each_kind_of_difference_is_said(live: list[str], late: list[str], failed: int, fault: str) -> None:
    assert any(fault in sentence for sentence in differences(SENT, {"!r": live}, {"!r": late}, failed))


def test_an_event_whose_request_failed_may_be_seen_all_the_same() -> None:
    assert differences(SENT, {"!r": [*ORDER, "$5"]}, {"!r": [*ORDER, "$5"]}, 1) == []


def test_an_event_acknowledged_twice_is_said() -> None:
    assert "acknowledged twice" in differences({"!r": [["$1", "$1"]]}, {"!r": ["$1"]}, {"!r": ["$1"]}, 0)[0]


@given(st.lists(st.integers(), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_its_share_of_values_do_not_exceed(values: list[int], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_a_target_is_a_ratio_in_the_direction_that_is_better_or_a_limit() -> None:
    assert Figure("a", "a", "/s", True, ratio=30).met(300, 10) is True
    assert Figure("a", "a", "/s", True, ratio=30).met(299, 10) is False
    assert Figure("a", "a", "ms", ratio=1 / 12).met(5, 60) is True
    assert Figure("a", "a", "ms", ratio=1 / 12).met(5.1, 60) is False
    assert Figure("a", "a", "", limit=2).met(3, None) is False
    assert Figure("a", "a", "ms", ratio=0.5).met(3, None) is None


def table(walden: Outcome) -> list[str]:
    figure = Figure("rate", "a rate", "/s", True, ratio=2)
    machine = {
        "processor": "p",
        "cores": 2,
        "memory_mib": 1,
        "kernel": "k",
        "file_system": "ext4",
        "load_at_start": "0",
    }
    outcomes = {"row": {"synapse": Outcome([Sample({"rate": 10})]), "walden": walden}}
    return lines(Results(("synapse", "walden"), {"row": (figure,)}, outcomes, machine))


def test_the_table_has_the_median_the_ratio_and_the_verdict() -> None:
    line = table(Outcome([Sample({"rate": 20}), Sample({"rate": 30}), Sample({"rate": 40})]))[2]
    assert line.split() == ["a", "rate", "10", "/s", "30", "/s", "3.00×", "2×", "met"]


def test_a_fault_turns_a_met_target_into_a_missed_one_and_is_printed() -> None:
    printed = table(Outcome([Sample({"rate": 30}, faults=["one event was lost"])]))
    assert "MISSED" in printed[2]
    assert "! row · walden: one event was lost" in printed


def test_a_row_that_failed_is_an_error_in_the_table_with_its_reason() -> None:
    printed = table(Outcome(error="set-up: no such endpoint"))
    assert "ERROR" in printed[2]
    assert "! row · walden: set-up: no such endpoint" in printed
