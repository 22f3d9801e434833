"""What is counted in memory reaches Prometheus' client once, as if it had been told at once."""

import asyncio
import gc

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from eventlog import metrics
from eventlog.metrics import Distribution, Level, Tallies, Tally, hand_over, handed_over

BOUNDS = (0.1, 1, 10)


def _samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.lists(st.floats(0, 20), max_size=5), max_size=4))
def test_a_distribution_shows_what_a_histogram_that_was_told_each_value_shows(turns: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    distribution = Distribution(Histogram("h", "h", buckets=BOUNDS, registry=ours))
    told = Histogram("h", "h", buckets=BOUNDS, registry=theirs)
    for turn in turns:
        for value in turn:
            distribution.observe(value)
            told.observe(value)
        distribution.hand_over()
        distribution.hand_over()
    expected = _samples(theirs)
    found = _samples(ours)
    assert abs(found.pop(("h_sum", "")) - expected.pop(("h_sum", ""))) < 1e-9 * (1 + sum(map(sum, turns)))
    assert found == expected


def test_what_a_tally_counts_is_handed_over_once() -> None:
    registry = CollectorRegistry()
    tally = Tally(Counter("c", "c", registry=registry))
    tally.count += 3
    hand_over()
    hand_over()
    tally.count += 1
    hand_over()
    assert registry.get_sample_value("c_total") == 4


def test_tallies_are_handed_over_by_their_labels() -> None:
    registry = CollectorRegistry()
    tallies = Tallies(Counter("c", "c", ["a", "b"], registry=registry))
    for values in (("x", "1"), ("x", "1"), ("y", "2")):
        tallies.add(*values)
    hand_over()
    hand_over()
    assert registry.get_sample_value("c_total", {"a": "x", "b": "1"}) == 2
    assert registry.get_sample_value("c_total", {"a": "y", "b": "2"}) == 1


def test_a_level_is_read_when_it_is_handed_over_and_ends_with_its_owner() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("g", "g", registry=registry)
    queue = [1, 2]
    level = Level(gauge, lambda: len(queue))
    hand_over()
    assert registry.get_sample_value("g") == 2
    del level
    gc.collect()
    queue.append(3)
    hand_over()
    assert registry.get_sample_value("g") == 2


async def test_a_process_hands_over_while_it_runs_and_when_it_ends_whatever_fails() -> None:
    before, metrics.SECONDS = metrics.SECONDS, 0.01  # type: ignore[misc]
    registry = CollectorRegistry()
    tally = Tally(Counter("c", "c", registry=registry))
    broken = Level(Gauge("g", "g", registry=registry), lambda: 1 / 0)
    try:
        async with handed_over("test"):
            tally.count += 1
            for _ in range(500):
                if registry.get_sample_value("c_total") == 1:
                    break
                await asyncio.sleep(0.02)
            assert registry.get_sample_value("c_total") == 1
            tally.count += 1
    finally:
        metrics.SECONDS = before  # type: ignore[misc]
    assert registry.get_sample_value("c_total") == 2
    del broken
