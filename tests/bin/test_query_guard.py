"""What `walden query` lets through and what it does not: by hand, from a corpus of attacks, and with statements made at random."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pglast.parser import ParseError, parse_sql, parse_sql_json

from bin.query_guard import CALLED_ON_ROWS, FUNCTIONS, OPERATORS, TYPES, QueryRefused, Schema, bounded, checked

SCHEMA = Schema(
    {"messages": ["event_id", "room_id", "sender", "body", "place"], "rooms": ["room_id", "name", "room"]},
    {
        "messages_of": ["of_room"],
        "state_at": ["of_room", "moment", "type", "content"],
        "place_at": ["of_room", "moment"],
    },
)

ALLOWED = [
    "select * from history.messages",
    "select * from history.messages;",
    "  select 1 -- a remark",
    "select 1 /* ; drop table x */",
    "table history.rooms",
    "values (1, 'a'), (2, 'b')",
    "select m.body, r.name from history.messages m join history.rooms r using (room_id)",
    "select m.* from history.messages m left join history.rooms r on r.room_id = m.room_id where r.name is null",
    "select sender, count(*) as n from history.messages_of('!r') group by sender having count(*) > 2 order by n limit 9 offset 1",
    "select s.type, s.content ->> 'name' from history.state_at('!r', now() - interval '1 day') s",
    "select * from history.messages_of('!r') where place > (select history.place_at('!r', now())) order by place",
    "with said as (select body from history.messages) select said.body, length(said.body) from said",
    "with a as (values (1)), b (x) as (select column1 from a) select b.x from b",
    "select x.n from (select count(*) as n from history.rooms) x",
    "select count(*) filter (where body ilike '%x%') over (partition by sender order by place rows 3 preceding) from history.rooms",
    "select percentile_cont(0.5) within group (order by length(body)) from history.messages",
    "select case when body is null then 'none' else coalesce(body, '') end from history.messages",
    "select (array[1, 2, 3])[2:3], row(1, 2), array(select body from history.messages), greatest(1, 2), nullif(1, 2)",
    "select extract(year from now()), now() at time zone 'utc', current_date, date '2026-01-01', cast('2' as numeric(5, 2))",
    "select trim(both 'x' from body), substring(body from 1 for 2), position('a' in body) from history.messages",
    "select sender from history.messages union all select name from history.rooms except select 'a' intersect select 'b'",
    "select * from history.rooms where exists (select 1 from history.messages) and name in ('a', 'b') and name = any (array['a'])",
    "select k.key, k.value from jsonb_each(jsonb_build_object('a', 1)) as k",
    "select u.x, u.ordinality from unnest(array[1, 2]) with ordinality as u (x, ordinality)",
    "select grouping(sender), sender from history.messages group by grouping sets ((sender), ())",
    "select distinct on (sender) sender, body from history.messages order by sender, place desc nulls last",
    "select '); drop table x; --' as \"a name; with (everything)\"",
    "select body similar to 'x%', body not like 'y', 1 between symmetric 2 and 0, body !~* 'z' from history.messages",
    "select m from history.messages m, lateral (select r.name from history.rooms r where r.room_id = m.room_id) q",
]

REFUSED = {
    "": "one statement",
    ";": "one statement",
    "select 1; select 2": "one statement",
    "selekt 1": "that is not SQL",
    "select 'unfinished": "that is not SQL",
    "select 1\0": "NUL",
    "select '\udcff'": "UTF-8",
    "insert into history.rooms values (1)": "only select",
    "update history.rooms set name = ''": "only select",
    "delete from history.rooms": "only select",
    "merge into history.rooms using history.messages m on true when matched then do nothing": "only select",
    "truncate history.rooms": "only select",
    "create table x (y int)": "only select",
    "drop table history.rooms": "only select",
    "do $$ begin end $$": "only select",
    "call x()": "only select",
    "copy (select 1) to program 'sh'": "only select",
    "explain analyze select 1": "only select",
    "prepare x as select 1": "only select",
    "execute x": "only select",
    "declare c cursor for select 1": "only select",
    "set role postgres": "only select",
    "reset role": "only select",
    "show all": "only select",
    "begin": "only select",
    "commit": "only select",
    "lock table history.rooms": "only select",
    "listen x": "only select",
    "notify x": "only select",
    "vacuum": "only select",
    "load 'x'": "only select",
    "select 1 into x": "may not write",
    "select * into temp x from history.rooms": "may not write",
    "with x as (select 1 into y) select 1": "",
    "with x as (insert into history.rooms values (1) returning *) select * from x": "only select",
    "with x as (update history.rooms set name = '' returning *) select * from x": "only select",
    "with x as (delete from history.rooms returning *) select * from x": "only select",
    "with recursive x (n) as (select 1 union all select n + 1 from x) select n from x": "recursive",
    "select * from history.rooms for update": "lock",
    "select * from history.rooms for key share skip locked": "lock",
    "select * from (select * from history.rooms for share) x": "lock",
    "select * from rooms": "write history.rooms",
    "select * from history.nothing": "there is no history.nothing",
    "select * from pg_class": "pg_class is not in the schema history",
    "select * from pg_catalog.pg_authid": "not in the schema history",
    "select * from information_schema.tables": "not in the schema history",
    "select * from eventlog.events": "not in the schema history",
    "select * from writer.accounts": "not in the schema history",
    "select * from benchmark.history.rooms": "only this database",
    "select * from only history.rooms": "as it is",
    "with pg_shadow as (select 1) select * from pg_shadow": "call it something else",
    "select * from (with pg_user as (select 1) select 1) x, pg_user": "call it something else",
    "select * from history.rooms tablesample system (10)": "not allowed",
    "select messages_of('!r')": "write history.messages_of",
    "select history.nothing()": "history.nothing is not on the list",
    "select 'x'::pg_catalog.pg_catalog.text": "not on the list",
    "select '" + "x" * 100_000 + "'": "more than 100000 bytes",
    "select public.messages_of('!r')": "not on the list",
    "select eventlog.next_id()": "not on the list",
    "select pg_sleep(10)": "not on the list",
    "select pg_catalog.pg_sleep(10)": "not on the list",
    'select "pg_sleep"(10)': "not on the list",
    'select u&"\\0070g_sleep"(10)': "not on the list",
    "select set_config('role', 'postgres', false)": "not on the list",
    "select current_setting('data_directory')": "not on the list",
    "select pg_read_file('/etc/passwd')": "not on the list",
    "select lo_import('/etc/passwd')": "not on the list",
    "select pg_advisory_lock(1)": "not on the list",
    "select pg_logical_emit_message(false, 'walden.typing', '{}')": "not on the list",
    "select pg_notify('walden_outputs', '')": "not on the list",
    "select pg_terminate_backend(1)": "not on the list",
    "select query_to_xml('select 1', true, true, '')": "not on the list",
    "select table_to_xml('pg_authid', true, true, '')": "not on the list",
    "select nextval('x')": "not on the list",
    "select repeat('x', 1000000000)": "not on the list",
    "select lpad('x', 1000000000)": "not on the list",
    "select * from generate_series(1, 1000000000)": "not on the list",
    "select * from pg_ls_dir('.')": "not on the list",
    "select * from rows from (unnest(array[1]), pg_ls_dir('.')) x": "not on the list",
    "select * from json_to_recordset('[]') as x (a int)": "column definitions",
    "select * from xmltable('/a' passing '<a/>' columns b text)": "not allowed",
    "select * from json_table('[]', '$' columns (a int))": "not allowed",
    "select xmlelement(name x)": "not allowed",
    "select version()": "not on the list",
    "select current_user": "who asks",
    "select session_user, user, current_role": "who asks",
    "select current_catalog": "who asks",
    "select current_schema": "who asks",
    "select * from current_user": "",
    "select 'pg_authid'::regclass": "type regclass",
    "select cast(1 as oid)": "type oid",
    "select regclass 'pg_authid'": "type regclass",
    "select '{}'::regclass[]": "type regclass",
    "select null::history.rooms": "type history.rooms",
    "select 'x'::pg_catalog.regprocedure": "not on the list",
    "select 'x'::public.text": "not on the list",
    "select x::history.rooms.name%type from history.rooms": "",
    "select 1 operator(public.+) 1": "operator public.+",
    "select 1 operator(eventlog.=) any (select 1)": "operator eventlog.=",
    "select 1 <~> 1": "operator <~>",
    "select 1 where 1 <-> any (select 1)": "operator <->",
    "select name from history.rooms order by name using operator(public.<)": "order by using",
    'select name collate "en-US-x-icu" from history.rooms': "not allowed",
    "select m.pg_typeof from history.messages m": "has a column pg_typeof",
    "select (m).pg_typeof from history.messages m": "has a column pg_typeof",
    "select ((m)).record_out from history.messages m": "has a column record_out",
    "select m.pg_column_size from history.messages m, (select 1 as pg_column_size) x": "call it something else",
    "select m.record_out from history.messages m, (values (1)) x (record_out)": "call it something else",
    "with x (hash_record) as (select 1) select m.hash_record from history.messages m": "call it something else",
    "select m.quote_literal from history.messages m join history.rooms quote_literal on true": "call it something else",
    "select history.messages.pg_typeof from history.messages": "has a column pg_typeof",
    "select $1": "not allowed",
    "select default": "",
    "select json_serialize('{}')": "not allowed",
    "select '{}' is json": "not allowed",
    "select 1 where current of c": "",
    "select count(*) over (order by pg_sleep(1)) from history.rooms": "not on the list",
    "select 1 from history.rooms window w as (partition by pg_sleep(1))": "not on the list",
    "select 1 limit pg_sleep(1)::text::int": "not on the list",
    "select 1 offset (select pg_backend_pid())": "not on the list",
}


@pytest.mark.parametrize("statement", ALLOWED)
def test_what_people_ask_is_let_through_with_a_limit_around_it(statement: str) -> None:
    run = bounded(statement, SCHEMA, 10).decode()
    assert run.startswith("select * from (\n") and run.endswith("\n) as walden_rows limit 10")
    assert checked(statement, SCHEMA).strip() in run
    assert len(parse_sql(run)) == 1


@pytest.mark.parametrize(("statement", "why"), REFUSED.items())
def test_attacks_are_refused_with_one_sentence(statement: str, why: str) -> None:
    with pytest.raises(QueryRefused) as caught:
        bounded(statement, SCHEMA, 10)
    sentence = str(caught.value)
    assert why in sentence
    assert sentence and "\n" not in sentence


HARMLESS = [
    "count(*)",
    "lower('x')",
    "(select max(body) from history.messages)",
    "'1'::int",
    "1 + 1",
    "current_date",
    "'é'",
]
HARMFUL = [
    "pg_sleep(1)",
    "(select max(rolname::text) from pg_authid)",
    "(select max(relname::text) from pg_catalog.pg_class)",
    "(select max(json) from eventlog.events)",
    "'pg_authid'::regclass::text",
    "(1 operator(public.+) 1)",
    "current_user",
    "(select x.n from (select 1 as n for update) x)",
    "(with y as (delete from history.rooms returning 1) select max(1) from y)",
    "set_config('a', 'b', false)",
    "lower(current_setting('a'))",
    "coalesce(null, case when true then version() end)",
    "(select m.pg_typeof from history.messages m limit 1)",
    "(array[inet_client_addr()])[1]",
    "$1",
]
PLACES = [
    "select {}",
    "select 1 as n where {} is null",
    "select 1 from history.rooms where name like {}",
    "select * from (select {} as c) x",
    "select * from history.rooms, lateral (select {} as c) x",
    "select * from (values ({})) as x (c)",
    "with x as (select {} as c) select c from x",
    "with x as (with y as (select {} as c) select c from y) select c from x",
    "select (select {})",
    "select exists (select {} from history.rooms)",
    "select 1 from history.rooms where name in (select {})",
    "select 1 from history.rooms where name = any (array[{}])",
    "select 1 from history.rooms where name in ('a', {})",
    "select lower(upper(concat('a', {})))",
    "select count(*) filter (where {} is not null) from history.rooms",
    "select string_agg(name, ',' order by {}) from history.rooms",
    "select row_number() over (partition by {}) from history.rooms",
    "select row_number() over (order by {} desc) from history.rooms",
    "select sum(1) over w from history.rooms window w as (order by {})",
    "select 1 from history.rooms group by {}",
    "select max(1) from history.rooms group by grouping sets (({}), ())",
    "select max(1) from history.rooms having {} is null",
    "select 1 from history.rooms order by {}",
    "select distinct on ({}) 1 from history.rooms",
    "select 1 union all select {}",
    "select 1 from history.rooms except (select 1 intersect select {})",
    "select case when {} is null then 1 end",
    "select case {} when 1 then 2 else 3 end",
    "select case when true then 1 else length({}::text) end",
    "select array[array[{}]]",
    "select (array[1, 2])[length({}::text)]",
    "select row(1, {})",
    "select cast({} as text)::varchar",
    "select greatest('a', {})",
    "select nullif({}, 'a')",
    "select {} between 'a' and 'b'",
    "select 'a' similar to {}",
    "select ({}) is true",
    "select not ({} = 'a' or false)",
    "select 1 from history.rooms a join history.rooms b on a.name = {}",
    "select 1 from history.rooms a left join (select {} as c) b on true",
    "select * from history.messages_of({})",
    "select * from history.state_at('!r', moment => {})",
    "select * from rows from (unnest(array[{}])) as x (c)",
    "select * from jsonb_each(jsonb_build_object('a', {}))",
    "select percentile_disc(0.5) within group (order by {}) from history.rooms",
    "select extract(epoch from {})",
    "select {} at time zone 'utc'",
    "select position('a' in {})",
    "select 1 limit {}",
    "select 1 offset {}",
    "table history.rooms union all (values ({}))",
]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_can_hide_in_any_place_of_a_statement(place: str) -> None:
    reached = 0
    for harmless in HARMLESS:
        try:
            parse_sql(place.format(harmless))
        except ParseError:
            continue
        bounded(place.format(harmless), SCHEMA, 1)
        reached += 1
    assert reached, "no statement of this form is let through: the place is not tested"
    for harmful in HARMFUL:
        with pytest.raises(QueryRefused):
            bounded(place.format(harmful), SCHEMA, 1)


VOCABULARY = """
    select from where with as ( ) , . * history messages rooms m x y body name pg_class pg_authid eventlog events pg_sleep count
    lower current_user now ( ( ) ) '1' 1 'pg_authid' :: regclass text int union all except lateral join on using values limit offset
    order by group having for update into recursive case when then end array [ ] = + || -> operator ( public . + ) any exists in
    insert delete returning distinct over partition filter cast table ; -- /* */ $1 $$ ' " row any_value set_config
"""
WORDS = st.sampled_from(VOCABULARY.split())
SHAPES = st.lists(WORDS, min_size=2, max_size=24).map(" ".join)


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(st.sampled_from(PLACES), inner).map(lambda pair: f"({pair[0].replace('{}', pair[1])})")


EXPRESSIONS = st.recursive(st.sampled_from([*HARMLESS, *HARMFUL]), nested, max_leaves=4)


def nodes(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every node of the parser's JSON with its kind: another way to look at a statement than the guard's."""
    if isinstance(tree, list):
        for one in tree:
            yield from nodes(one)
    elif isinstance(tree, dict):
        for kind, value in tree.items():
            yield kind, value
            yield from nodes(value)


def assert_harmless(statement: str) -> None:
    tree = json.loads(parse_sql_json(statement))
    found = list(nodes(tree))
    kinds = {kind for kind, _ in found}
    assert not {kind for kind in kinds if kind.endswith("Stmt")} - {"SelectStmt", "RawStmt", "stmt"}
    assert not kinds & {"intoClause", "lockingClause", "ParamRef", "RangeTableSample", "RangeTableFunc"}
    named = {value["ctename"] for kind, value in found if kind == "CommonTableExpr"}
    for kind, value in found:
        if kind == "RangeVar" and value.get("schemaname") != "history":
            assert "schemaname" not in value and value["relname"] in named and not value["relname"].startswith("pg_")
        if kind == "FuncCall":
            path = [part["String"]["sval"] for part in value["funcname"]]
            assert path[-1] in (SCHEMA.functions if path[0] == "history" else FUNCTIONS)
        if kind in ("TypeName", "typeName"):
            assert value["names"][-1]["String"]["sval"] in TYPES
        if kind == "SQLValueFunction":
            assert "DATE" in value["op"] or "TIME" in value["op"]


@settings(deadline=None, max_examples=400)
@given(st.one_of(SHAPES, EXPRESSIONS.map(lambda expression: f"select {expression}")))
@example("select m.name from history.rooms m")
def test_whatever_is_let_through_is_harmless_looked_at_another_way(statement: str) -> None:
    try:
        run = bounded(statement, SCHEMA, 5)
    except QueryRefused:
        return
    assert_harmless(run.decode())


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_no_text_makes_the_guard_fail_otherwise(text: str) -> None:
    for statement in (text, f"select {text}", f"select '{text}'"):
        try:
            bounded(statement, SCHEMA, 1)
        except QueryRefused as refused:
            assert str(refused)


@pytest.mark.parametrize("depth", [500, 5_000, 30_000])
def test_nesting_deeper_than_anybody_writes_is_refused(depth: int) -> None:
    for opening, closing in (("(", ")"), ("(select ", ")"), ("lower(", ")"), ("not ", "")):
        with pytest.raises(QueryRefused):
            bounded("select " + opening * depth + "1" + closing * depth + "x y z", SCHEMA, 1)
        statement = "select " + opening * depth + "'1'" + closing * depth
        try:
            bounded(statement, SCHEMA, 1)
        except QueryRefused as refused:
            assert str(refused)


@pytest.mark.postgres
def test_every_function_that_can_be_called_on_a_row_like_a_column_is_known(database: str) -> None:
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            """select distinct p.proname from pg_proc p
               where p.pronamespace = 'pg_catalog'::regnamespace and p.pronargs >= 1 and p.pronargs - p.pronargdefaults <= 1
                 and (p.provariadic <> 0 or p.proargtypes[0]::regtype::text
                      in ('"any"', 'anyelement', 'anycompatible', 'record', 'anynonarray', 'anycompatiblenonarray', 'unknown'))"""
        ).fetchall()
    names = {name for (name,) in rows}
    assert "pg_typeof" in names
    assert {name for name in names - FUNCTIONS - CALLED_ON_ROWS if not name.startswith("pg_")} == set()


@pytest.mark.postgres
def test_functions_types_and_operators_on_the_lists_are_postgres_own(database: str) -> None:
    with psycopg.connect(database) as connection:
        functions = {
            n
            for (n,) in connection.execute(
                "select proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace"
            )
        }
        types = {
            n
            for (n,) in connection.execute(
                "select typname from pg_type where typnamespace = 'pg_catalog'::regnamespace"
            )
        }
        operators = {
            n
            for (n,) in connection.execute(
                "select oprname from pg_operator where oprnamespace = 'pg_catalog'::regnamespace"
            )
        }
        volatile = {
            n
            for (n,) in connection.execute(
                "select proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace and provolatile = 'v'"
                " and proname = any (%s)",
                [list(FUNCTIONS)],
            )
        }
    spoken = {"trim", "every"}  # Words of the grammar, or other names of one.
    assert FUNCTIONS - functions - spoken - {"any_value"} == set()
    assert (
        TYPES
        - types
        - {"boolean", "character", "decimal", "double", "int", "integer", "real", "smallint", "bigint", "char"}
        == set()
    )
    assert OPERATORS - operators - {"!=", "BETWEEN"} == set()
    assert volatile == {"clock_timestamp", "random"}
