"""The logs' partitions: made ahead, contiguous, and never in the way of what is there already."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

pytestmark = pytest.mark.postgres

INSERT = """
insert into eventlog.events (id, kind, shard, type, sender, json) values (eventlog.id_at(%s), %s, 0, 'profile', '@a:b', '{}')
returning tableoid::regclass::text
"""


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        # The template may be of yesterday.
        connection.execute("select eventlog.make_partitions()")
        yield connection


def make(owner: psycopg.Connection[Any], ahead: str) -> int:
    row = owner.execute("select eventlog.make_partitions(%s::interval)", [ahead]).fetchone()
    assert row is not None
    made: int = row[0]
    return made


def spans(owner: psycopg.Connection[Any], parent: str) -> list[tuple[int, int]]:
    """The ranges of a log's partitions by id, in order, without the default."""
    rows = owner.execute(
        "select (regexp_match(pg_get_expr(c.relpartbound, c.oid), '\\((?:''?)(\\d+)''?\\) TO \\(''?(\\d+)'))"
        " from pg_inherits i join pg_class c on c.oid = i.inhrelid"
        " where i.inhparent = %s::regclass and pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'",
        [f"eventlog.{parent}"],
    ).fetchall()
    return sorted((int(bounds[0]), int(bounds[1])) for (bounds,) in rows)


def test_what_comes_now_and_soon_has_a_partition_of_its_own(owner: psycopg.Connection[Any]) -> None:
    now = datetime.now(UTC)
    for kind, days in (("s", 80), ("m", 80), ("u", 14)):
        for moment in (now, now + timedelta(days=days)):
            row = owner.execute(INSERT, [moment, kind]).fetchone()
            assert row is not None
            assert row[0].startswith(f"eventlog.events_{kind}_2"), row


@pytest.mark.parametrize(
    "parent", ["events_s", "events_m", "events_u", "outputs_s", "outputs_m", "outputs_u", "outputs_e"]
)
def test_partitions_follow_each_other_without_gaps(owner: psycopg.Connection[Any], parent: str) -> None:
    found = spans(owner, parent)
    assert found
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(found))
    now = int(datetime.now(UTC).timestamp() * 1000) << 20
    assert any(begin <= now < end for begin, end in found[:2])


def test_both_logs_are_cut_at_the_same_moments(owner: psycopg.Connection[Any]) -> None:
    for kind in "smu":
        assert spans(owner, f"events_{kind}") == spans(owner, f"outputs_{kind}")


def test_making_them_again_makes_none(owner: psycopg.Connection[Any]) -> None:
    assert make(owner, "3 months") == 0


def test_looking_further_ahead_makes_more_but_few_of_the_short_ones(owner: psycopg.Connection[Any]) -> None:
    before = {kind: len(spans(owner, f"outputs_{kind}")) for kind in "smue"}
    assert make(owner, "2 years") > 0
    after = {kind: len(spans(owner, f"outputs_{kind}")) for kind in "smue"}
    assert after["s"] >= 3
    assert after["m"] <= before["m"] + 3
    assert after["u"] == before["u"]
    assert after["e"] == before["e"] <= 4


def test_rows_that_came_without_a_partition_stay_where_they_are(owner: psycopg.Connection[Any]) -> None:
    made = {int(begin) for begin, _ in spans(owner, "events_s")}
    late = datetime(datetime.now(UTC).year + 2, 6, 1, tzinfo=UTC)
    row = owner.execute(INSERT, [late, "s"]).fetchone()
    assert row == ("eventlog.events_s_default",)
    assert make(owner, "4 years") > 0
    row = owner.execute(
        "select tableoid::regclass::text from eventlog.events where id = eventlog.id_at(%s)", [late]
    ).fetchone()
    assert row == ("eventlog.events_s_default",)
    # The year of the stray row has no partition; those before it do.
    years = {datetime.fromtimestamp((begin >> 20) / 1000, UTC).year for begin, _ in spans(owner, "events_s")}
    assert late.year not in years
    assert late.year - 1 in years
    assert {begin for begin, _ in spans(owner, "events_s")} > made or len(years) > 1


def test_the_maintenance_role_can_make_them_and_others_cannot(owner: psycopg.Connection[Any]) -> None:
    owner.execute("set role walden_reader")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        make(owner, "2 years")
    owner.execute("reset role")
    owner.execute("set role walden_maintenance")
    assert make(owner, "2 years") > 0
    assert make(owner, "2 years") == 0


def test_a_look_up_by_id_reads_one_partition(owner: psycopg.Connection[Any]) -> None:
    plan = owner.execute(
        "explain (format json) select json from eventlog.events where id = eventlog.id_at(now()) and kind = 'm'"
    ).fetchone()
    assert plan is not None
    owner.execute("prepare look (bigint) as select json from eventlog.events where id = $1 and kind = 'm'")
    owner.execute("set plan_cache_mode = force_generic_plan")
    rows = owner.execute(
        "explain (analyze, costs off, timing off, summary off) execute look (eventlog.id_at(now()))"
    ).fetchall()
    scans = [line for (line,) in rows if "on events_m" in line and "never executed" not in line]
    assert len(scans) == 1, rows


def test_old_ephemeral_outputs_are_dropped_a_day_at_a_time_and_nothing_else(owner: psycopg.Connection[Any]) -> None:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for age in (9, 5, 4, 3):
        begin, end = day - timedelta(days=age), day - timedelta(days=age - 1)
        owner.execute(
            f"create table eventlog.outputs_e_{begin:%Y%m%d} partition of eventlog.outputs_e"
            f" for values from ({int(begin.timestamp() * 1000) << 20}) to ({int(end.timestamp() * 1000) << 20})"
        )
    before = spans(owner, "outputs_e")
    others = {parent: spans(owner, parent) for parent in ("outputs_s", "outputs_m", "outputs_u", "events_m")}
    assert owner.execute("select eventlog.drop_ephemeral()").fetchone() == (3,)
    assert spans(owner, "outputs_e") == before[3:]
    assert owner.execute("select eventlog.drop_ephemeral()").fetchone() == (0,)
    assert others == {parent: spans(owner, parent) for parent in others}
