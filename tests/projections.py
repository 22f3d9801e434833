"""What the room server's tables must be, computed again from the two logs alone, in SQL.

Invariant: nothing here reads a projection to say what it should be; each question answers with the rows that differ, so that
no row at all is the only good answer. For databases without U+0000 in their events (PostgreSQL cannot take such JSON apart).
"""

from __future__ import annotations

from typing import Final, LiteralString

import psycopg

DELTAS: Final[LiteralString] = """
with deltas as materialized (
    select o.room, o.position, e.type, e.state_key, e.event_id, e.id as entry
    from eventlog.outputs o join eventlog.events e on e.id = o.entry and e.kind = o.kind
    where o.verdict = 'a' and o.annotation::json ->> 'current' = 'true'
    union all
    select o.room, o.position, d ->> 0, d ->> 1, d ->> 2, (d ->> 3)::bigint
    from eventlog.outputs o, json_array_elements(o.annotation::json -> 'state') d
    where o.verdict = 'a' and o.annotation::json -> 'state' is not null
),
"""

DIFFERENCE: Final[LiteralString] = """
(select 'missing' as fault, x.* from (select * from rebuilt except all select * from stored) x)
union all
(select 'too much', x.* from (select * from stored except all select * from rebuilt) x)
limit 20
"""

QUESTIONS: Final[dict[str, LiteralString]] = {
    "positions are dense and the stored one is the last": """
        select o.shard, min(o.position), max(o.position), count(*), p.position as stored
        from eventlog.outputs o join eventlog.positions p on p.component = 'roomserver' and p.shard = o.shard
        group by o.shard, p.position
        having min(o.position) <> 1 or max(o.position) <> count(*) or max(o.position) <> p.position
        """,
    "every entry is judged once": """
        select e.id, e.kind, count(o.entry) from eventlog.events e left join eventlog.outputs o on o.entry = e.id
        group by e.id, e.kind having count(o.entry) <> 1 limit 20
        """,
    "every event id is found": """
        with rebuilt as (select eventlog.event_key(event_id), id from eventlog.events where event_id is not null),
        stored as (select key, id from eventlog.event_keys)
        """
    + DIFFERENCE,
    "nothing is left over": """
        select 'deferred' as fault, entry from roomserver.deferred
        union all select 'attempts', entry from roomserver.attempts
        union all select 'quarantine', entry from roomserver.quarantine
        """,
    "the state of every moment": DELTAS
    + """
        ends as (
            select d.room, d.type, d.state_key, d.event_id, d.entry, d.position as valid_from,
                   coalesce(lead(d.position) over (partition by d.room, d.type, d.state_key order by d.position),
                            9223372036854775807) as valid_to
            from deltas d
        ),
        rebuilt as (select * from ends where event_id is not null),
        stored as (
            select s.room, s.type, s.state_key, e.event_id, s.entry, s.valid_from, s.valid_to
            from roomserver.state s join eventlog.events e on e.id = s.entry where s.line = 0
        )
        """
    + DIFFERENCE,
    "memberships": """
        with changes as (
            select o.room, m ->> 0 as user_id, (m ->> 1)::"char" as new, m ->> 2 as old, o.position
            from eventlog.outputs o, json_array_elements(o.annotation::json -> 'members') m
            where o.verdict = 'a' and o.annotation::json -> 'members' is not null
        ),
        last as (
            select distinct on (user_id, room) user_id, room, new, position
            from changes order by user_id, room, position desc
        ),
        rebuilt as (
            select l.user_id, l.room, l.new as membership, l.position,
                   (select max(c.position) from changes c
                    where c.user_id = l.user_id and c.room = l.room and c.new = 'j' and c.old is distinct from 'j') as joined_at,
                   exists (select from eventlog.outputs o join eventlog.events e on e.id = o.entry and e.kind = 'u'
                           where o.kind = 'u' and o.verdict = 'a' and e.type = 'forget' and e.sender = l.user_id
                             and o.room = l.room and o.position > l.position) as forgotten
            from last l
        ),
        stored as (select user_id, room, membership, position, joined_at, forgotten from roomserver.memberships)
        """
    + DIFFERENCE,
    "heads": DELTAS
    + """
        judged as materialized (
            select o.room, o.position, o.verdict, e.seq, e.event_id, e.json::json as pdu
            from eventlog.outputs o join eventlog.events e on e.id = o.entry and e.kind = o.kind
            where o.kind in ('s', 'm') and o.room is not null
        ),
        named as (
            select distinct j.room, case when json_typeof(p) = 'array' then p ->> 0 else p #>> '{}' end as event_id
            from judged j, json_array_elements(j.pdu -> 'prev_events') p where j.verdict = 'a'
        ),
        rebuilt as (
            select j.room, max(j.position) as position, max(j.seq) as judged_seq,
                   max((j.pdu ->> 'depth')::bigint) filter (where j.verdict = 'a') as depth,
                   (select max(d.position) from deltas d where d.room = j.room) as state_position,
                   array(select a.event_id from judged a where a.room = j.room and a.verdict = 'a'
                           and not exists (select from named n where n.room = a.room and n.event_id = a.event_id)
                         order by 1) as extremities,
                   (select count(*) from roomserver.memberships m where m.room = j.room and m.membership = 'j')::integer as joined,
                   (select count(*) from roomserver.memberships m where m.room = j.room and m.membership = 'i')::integer as invited
            from judged j group by j.room
        ),
        stored as (
            select room, position, judged_seq, depth, state_position,
                   array(select x from unnest(extremities) x order by 1), joined, invited
            from roomserver.heads
        )
        """
    + DIFFERENCE,
    "the chains": """
        with rebuilt as (
            select e.room_id, max(e.seq) as seq, count(*) as links, (array_agg(e.event_id order by e.seq desc))[1] as event_id
            from eventlog.events e where e.seq is not null group by e.room_id
        ),
        stored as (select t.room_id, t.seq, t.seq as links, t.event_id from eventlog.tips t)
        """
    + DIFFERENCE,
    "no accepted event rests on one that was not accepted": """
        select e.event_id, p.key as previous, o.verdict
        from eventlog.outputs a
        join eventlog.events e on e.id = a.entry and e.kind = a.kind
        cross join json_array_elements(e.json::json -> 'prev_events') named
        left join eventlog.event_keys p
            on p.key = eventlog.event_key(case when json_typeof(named) = 'array' then named ->> 0 else named #>> '{}' end)
        left join eventlog.outputs o on o.entry = p.id
        where a.kind in ('s', 'm') and a.verdict = 'a' and o.verdict is distinct from 'a' limit 20
        """,
    "receipts": """
        with entries as (
            select o.room, e.sender, e.json::json as body, o.position
            from eventlog.outputs o join eventlog.events e on e.id = o.entry and e.kind = 'u'
            where o.kind = 'u' and o.verdict = 'a' and e.type = 'm.receipt'
        ),
        rebuilt as (
            select distinct on (room, sender, body ->> 'receipt_type', body ->> 'thread_id')
                   room, sender, body ->> 'receipt_type', body ->> 'thread_id', body ->> 'event_id', (body ->> 'ts')::bigint,
                   position
            from entries order by room, sender, body ->> 'receipt_type', body ->> 'thread_id', position desc
        ),
        stored as (select room, user_id, receipt_type, thread_id, event_id, ts, position from roomserver.receipts)
        """
    + DIFFERENCE,
    "account data": """
        with entries as (
            select e.sender, e.json::json as body, o.position
            from eventlog.outputs o join eventlog.events e on e.id = o.entry and e.kind = 'u'
            where o.kind = 'u' and o.verdict = 'a' and e.type = 'account_data'
        ),
        rebuilt as (
            select distinct on (sender, body ->> 'room_id', body ->> 'type')
                   sender, body ->> 'room_id', body ->> 'type', (body -> 'content')::jsonb, position
            from entries order by sender, body ->> 'room_id', body ->> 'type', position desc
        ),
        stored as (select user_id, room_id, type, content::jsonb, position from roomserver.account_data)
        """
    + DIFFERENCE,
    "profiles": """
        with entries as (
            select e.sender, e.json::json as body, o.position
            from eventlog.outputs o join eventlog.events e on e.id = o.entry and e.kind = 'u'
            where o.kind = 'u' and o.verdict = 'a' and e.type = 'profile'
        ),
        last as (
            select distinct on (sender, body ->> 'field') sender, body ->> 'field' as field, body -> 'value' as value, position
            from entries order by sender, body ->> 'field', position desc
        ),
        rebuilt as (select sender, field, value::jsonb, position from last where json_typeof(value) <> 'null'),
        stored as (select user_id, field, value::jsonb, position from roomserver.profiles)
        """
    + DIFFERENCE,
    "relations": """
        with rebuilt as (
            select r ->> 'event_id' as target, r ->> 'rel_type' as rel_type, o.timeline, e.id as entry, o.room, e.event_id, e.sender
            from eventlog.outputs o join eventlog.events e on e.id = o.entry and e.kind = o.kind,
                 lateral (select e.json::json -> 'content' -> 'm.relates_to' as r) l
            where o.verdict = 'a' and o.kind in ('s', 'm') and json_typeof(r) = 'object'
              and r ->> 'event_id' is not null and r ->> 'rel_type' is not null
        ),
        stored as (select target, rel_type, timeline, entry, room, event_id, sender from roomserver.relations)
        """
    + DIFFERENCE,
    "redactions": """
        with rebuilt as (
            select o.annotation::json ->> 'redacts' as target, e.event_id, e.id as entry, o.room, o.position
            from eventlog.outputs o join eventlog.events e on e.id = o.entry and e.kind = o.kind
            where o.verdict = 'a' and o.annotation::json ->> 'redacts' is not null
        ),
        stored as (select target, redaction, entry, room, position from roomserver.redactions)
        """
    + DIFFERENCE,
}


def differences(dsn: str) -> dict[str, list[tuple[object, ...]]]:
    """The questions that have rows for an answer, with the rows (20 at most)."""
    with psycopg.connect(dsn) as connection:
        found = {name: connection.execute(query).fetchall() for name, query in QUESTIONS.items()}
    return {name: rows for name, rows in found.items() if rows}
