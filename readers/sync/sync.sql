-- outputs_between --
-- A range of a shard's outputs with their entries, in order: what the stream would have brought.
select o.shard, o.position, o.kind::text, o.entry, o.room, o.verdict::text, o.timeline, o.line, o.annotation,
       e.id, e.event_id, e.room_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json
from eventlog.outputs o
left join eventlog.events e on e.id = o.entry and e.kind = o.kind
where o.shard = %(shard)s and o.position > %(after)s and o.position <= %(upto)s
order by o.position
limit %(most)s

-- entries --
-- Entries by id, for outputs whose entry the stream did not show.
select e.id, e.event_id, e.room_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json
from eventlog.events e
where e.id = any(%(ids)s)

-- database_oid --
-- This database's OID, part of every slot name.
select oid::bigint from pg_database where datname = current_database()

-- epochs --
-- Every epoch with its parent and where it forked, the present one first.
select epoch, parent, forked_at from eventlog.epochs order by ordinal desc

-- room_versions --
-- Room versions by room number.
select nid, room_version from roomserver.rooms where nid = any(%(rooms)s)

-- typing --
-- The newest notices of typing as of positions by shard, of each shard in order.
select n.shard, n.position, n.room, n.annotation
from unnest(%(now)s::bigint[]) with ordinality as h (position, shard)
cross join lateral (
    select o.shard, o.position, o.room, o.annotation
    from eventlog.outputs o
    where o.shard = h.shard - 1 and o.kind = 'e' and o.position <= h.position
      and o.entry > eventlog.id_at(now() - interval '10 minutes')
    order by o.position desc
    limit %(most)s
) n
order by n.shard, n.position

-- those_joined --
-- Which of some users, each in a room, are joined to it, and since when.
select distinct m.room, m.user_id, m.joined_at
from unnest(%(rooms)s::bigint[], %(users)s::text[]) as x (room, user_id)
join roomserver.memberships m on m.room = x.room and m.user_id = x.user_id and m.membership = 'j'

-- filter --
-- A client's stored filter.
select definition from writer.filters where user_id = %(user_id)s and filter_id = %(filter_id)s

-- rooms_of_user --
-- Where a user stands with every room as of positions by shard.
select m.room, n.room_id, n.shard, n.room_version, coalesce(s.membership, m.membership)::text, coalesce(s.valid_from, m.position),
       case when m.joined_at <= (%(now)s::bigint[])[n.shard + 1] then m.joined_at end,
       case when m.joined_at is not null and coalesce(s.membership, m.membership) <> 'j' then (
           select max(j.valid_to) from roomserver.state j
           where j.room = m.room and j.type = 'm.room.member' and j.state_key = m.user_id and j.line = 0 and j.membership = 'j'
             and j.valid_to <= (%(now)s::bigint[])[n.shard + 1]
       ) end,
       m.forgotten
from roomserver.memberships m
join roomserver.rooms n on n.nid = m.room
left join roomserver.state s on s.room = m.room and s.type = 'm.room.member' and s.state_key = m.user_id and s.line = 0
    and s.valid_from <= (%(now)s::bigint[])[n.shard + 1] and s.valid_to > (%(now)s::bigint[])[n.shard + 1]
where m.user_id = %(user_id)s and coalesce(s.valid_from, m.position) <= (%(now)s::bigint[])[n.shard + 1]

-- membership_changes --
-- A user's membership changes between positions by shard, each with the membership before it.
select n.shard, s.valid_from, m.room, n.room_id, s.membership::text,
       (select p.membership::text from roomserver.state p
        where p.room = s.room and p.type = s.type and p.state_key = s.state_key and p.line = 0 and p.valid_to = s.valid_from)
from roomserver.memberships m
join roomserver.rooms n on n.nid = m.room
join roomserver.state s on s.room = m.room and s.type = 'm.room.member' and s.state_key = m.user_id and s.line = 0
    and s.valid_from > (%(since)s::bigint[])[n.shard + 1] and s.valid_from <= (%(now)s::bigint[])[n.shard + 1]
where m.user_id = %(user_id)s and s.membership is not null
order by s.valid_from

-- account_data --
-- A user's account data that changed between positions by shard.
select a.shard, a.position, a.room_id, a.type, a.content
from roomserver.account_data a
where a.user_id = %(user_id)s and a.position <= (%(now)s::bigint[])[a.shard + 1]
  and (%(since)s::bigint[] is null or a.position > (%(since)s::bigint[])[a.shard + 1])
order by a.position

-- account_data_of_rooms --
-- A user's account data of some rooms, whole.
select a.shard, a.position, a.room_id, a.type, a.content
from roomserver.account_data a
where a.user_id = %(user_id)s and a.position <= (%(now)s::bigint[])[a.shard + 1] and a.room_id = any(%(room_ids)s)
order by a.position

-- global_account_data --
-- Pieces of a user's global account data.
select type, content from roomserver.account_data where user_id = %(user_id)s and room_id = '' and type = any(%(types)s)

-- timelines --
-- The newest timeline entries of each room in a span of its timeline, newest first.
select r.i::int, o.timeline, o.entry
from unnest(%(rooms)s::bigint[], %(after)s::bigint[], %(upto)s::bigint[]) with ordinality as r (room, after, upto, i)
cross join lateral (
    select t.timeline, t.entry
    from eventlog.outputs t
    where t.room = r.room and t.timeline > r.after and t.timeline <= r.upto and t.kind in ('s', 'm') and t.verdict = 'a'
    order by t.timeline desc
    limit %(most)s
) o
order by r.i, o.timeline desc

-- filtered_timelines --
-- The same, of the types and senders that a filter lets through, among a bounded number; a null says that there may be more.
select r.i::int, o.timeline, o.entry
from unnest(%(rooms)s::bigint[], %(after)s::bigint[], %(upto)s::bigint[]) with ordinality as r (room, after, upto, i)
cross join lateral (
    with looked_at as materialized (
        select t.timeline, t.entry, t.kind
        from eventlog.outputs t
        where t.room = r.room and t.timeline > r.after and t.timeline <= r.upto and t.kind in ('s', 'm') and t.verdict = 'a'
        order by t.timeline desc
        limit %(scan)s
    )
    (select l.timeline, l.entry
     from looked_at l
     cross join lateral (
         select n.type, n.sender from eventlog.events n where n.id = l.entry and n.kind = l.kind and n.kind in ('s', 'm') limit 1
     ) e
     where (%(types)s::text[] is null or e.type like any(%(types)s))
       and (%(not_types)s::text[] is null or not e.type like any(%(not_types)s))
       and (%(senders)s::text[] is null or e.sender = any(%(senders)s))
       and (%(not_senders)s::text[] is null or e.sender <> all(%(not_senders)s))
     order by l.timeline desc
     limit %(most)s)
    union all
    select null, null from looked_at having count(*) = %(scan)s
) o
order by r.i, o.timeline desc

-- events --
-- Events by entry id, each with its output and the redaction that took its content away.
select o.shard, coalesce(o.position, 0), e.kind::text, e.id, o.room, coalesce(o.verdict, 'o')::text, o.timeline, coalesce(o.line, 0),
       o.annotation,
       e.id, e.event_id, e.room_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction, x.json, x.room_version
from unnest(%(ids)s::bigint[]) as i (id)
join eventlog.events e on e.id = i.id and e.kind in ('s', 'm')
left join eventlog.outputs o on o.entry = e.id and o.kind = e.kind and o.kind in ('s', 'm')
left join (
    select d.target, d.redaction, z.json, n.room_version
    from roomserver.redactions d
    join roomserver.rooms n on n.nid = d.room
    join eventlog.events z on z.id = d.entry and z.kind in ('s', 'm')
) x on x.target = e.event_id

-- redacted --
-- Which of some events have been redacted.
select target from roomserver.redactions where target = any(%(targets)s)

-- states --
-- The whole state of rooms after a position, member events aside unless they are wanted.
select r.i::int, s.type, s.state_key, s.valid_from, s.entry
from unnest(%(rooms)s::bigint[], %(at)s::bigint[]) with ordinality as r (room, at, i)
join roomserver.state s on s.room = r.room and s.line = 0 and s.valid_from <= r.at and s.valid_to = 9223372036854775807
where s.entry is not null and (%(members)s or s.type <> 'm.room.member')
union all
select r.i::int, s.type, s.state_key, s.valid_from, s.entry
from unnest(%(rooms)s::bigint[], %(at)s::bigint[]) with ordinality as r (room, at, i)
join roomserver.state s on s.room = r.room and s.line = 0 and s.valid_from <= r.at and s.valid_to > r.at
    and s.valid_to < 9223372036854775807
where s.entry is not null and (%(members)s or s.type <> 'm.room.member')

-- state_changes --
-- What changed in the state of rooms between two positions and still stood at the second.
select r.i::int, s.type, s.state_key, s.valid_from, s.entry
from unnest(%(rooms)s::bigint[], %(after)s::bigint[], %(at)s::bigint[]) with ordinality as r (room, after, at, i)
join roomserver.state s on s.room = r.room and s.line = 0 and s.valid_from > r.after and s.valid_from <= r.at and s.valid_to > r.at
where s.entry is not null

-- members --
-- Member events of some users, each in a room after a position.
select r.i::int, s.type, s.state_key, s.valid_from, s.entry
from unnest(%(rooms)s::bigint[], %(at)s::bigint[], %(users)s::text[]) with ordinality as r (room, at, user_id, i)
join roomserver.state s on s.room = r.room and s.type = 'm.room.member' and s.state_key = r.user_id and s.line = 0
    and s.valid_from <= r.at and s.valid_to > r.at
where s.entry is not null

-- key_history --
-- A state key of rooms over time, on all lines: who was a member when, what the history visibility was when.
select r.i::int, s.line, s.valid_from, s.valid_to, s.membership::text, s.entry
from unnest(%(rooms)s::bigint[]) with ordinality as r (room, i)
join roomserver.state s on s.room = r.room and s.type = %(type)s and s.state_key = %(state_key)s
order by r.i, s.line, s.valid_from

-- lines --
-- Where state lines off their rooms' main lines forked from them.
select r.i::int, l.line, l.base_position
from unnest(%(rooms)s::bigint[], %(lines)s::integer[]) with ordinality as r (room, line, i)
join roomserver.lines l on l.room = r.room and l.line = r.line

-- summaries --
-- Member counts of rooms after a position.
select r.i::int,
       case when h.state_position <= r.at then h.joined
            else (select count(*) from roomserver.state s
                  where s.room = r.room and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
                    and s.valid_from <= r.at and s.valid_to > r.at) end::bigint,
       case when h.state_position <= r.at then h.invited
            else (select count(*) from roomserver.state s
                  where s.room = r.room and s.line = 0 and s.type = 'm.room.member' and s.membership = 'i'
                    and s.valid_from <= r.at and s.valid_to > r.at) end::bigint
from unnest(%(rooms)s::bigint[], %(at)s::bigint[]) with ordinality as r (room, at, i)
join roomserver.heads h on h.room = r.room

-- heroes --
-- The first members of rooms after a position, the user aside, and whether they are joined or invited: those who are come first.
select r.i::int, m.state_key, m.present
from unnest(%(rooms)s::bigint[], %(at)s::bigint[]) with ordinality as r (room, at, i)
cross join lateral (
    select s.state_key, s.membership in ('j', 'i') as present, s.valid_from
    from roomserver.state s
    where s.room = r.room and s.line = 0 and s.type = 'm.room.member' and s.state_key <> %(user_id)s and s.entry is not null
      and s.valid_from <= r.at and s.valid_to > r.at
    order by s.membership in ('j', 'i') desc, s.valid_from
    limit %(most)s
) m
order by r.i, m.present desc, m.valid_from

-- receipts --
-- The latest receipts of rooms in a span of positions, and all of the user's own; private ones of nobody else.
select r.i::int, c.position, c.user_id, c.receipt_type, c.thread_id, c.event_id, c.ts
from unnest(%(rooms)s::bigint[], %(after)s::bigint[], %(upto)s::bigint[]) with ordinality as r (room, after, upto, i)
cross join lateral (
    (select * from roomserver.receipts p
     where p.room = r.room and p.position > r.after and p.position <= r.upto and p.receipt_type = 'm.read'
     order by p.position desc
     limit 500)
    union
    select * from roomserver.receipts p
    where p.room = r.room and p.user_id = %(user_id)s and p.position > r.after and p.position <= r.upto
) c
order by r.i, c.position

-- stripped_state --
-- What a user who may join is shown of rooms: the state that describes them, the user's member event and its sender's.
select r.i::int, s.entry
from unnest(%(rooms)s::bigint[], %(at)s::bigint[], %(senders)s::text[]) with ordinality as r (room, at, sender, i)
cross join lateral (
    select s.entry
    from roomserver.state s
    where s.room = r.room and s.line = 0 and s.valid_from <= r.at and s.valid_to > r.at and s.entry is not null
      and s.type in ('m.room.create', 'm.room.name', 'm.room.avatar', 'm.room.topic', 'm.room.join_rules',
                     'm.room.canonical_alias', 'm.room.encryption')
      and s.state_key = ''
    union
    select s.entry
    from roomserver.state s
    where s.room = r.room and s.type = 'm.room.member' and s.state_key in (%(user_id)s, r.sender) and s.line = 0
      and s.valid_from <= r.at and s.valid_to > r.at and s.entry is not null
) s

-- invitations --
-- Who invited the user to rooms, and the entry that did.
select m.room, m.sender, m.entry
from roomserver.memberships m
where m.user_id = %(user_id)s and m.room = any(%(rooms)s)

-- heads --
-- How far every shard of the room server is.
select position from eventlog.positions where component = 'roomserver' order by shard

-- own_receipts --
-- A user's receipts in rooms, with the order of the events they point at.
select c.room, c.thread_id, max(coalesce(c.event_position, 0))
from roomserver.receipts c
where c.user_id = %(user_id)s and c.room = any(%(rooms)s) and c.position <= %(upto)s
  and c.receipt_type in ('m.read', 'm.read.private')
group by c.room, c.thread_id

-- unread_spans --
-- The newest events of others after an order in each room's timeline, among a bounded number.
select r.i::int, o.entry
from unnest(%(rooms)s::bigint[], %(after)s::bigint[], %(upto)s::bigint[]) with ordinality as r (room, after, upto, i)
cross join lateral (
    select l.entry
    from (
        select t.timeline, t.entry, t.kind
        from eventlog.outputs t
        where t.room = r.room and t.timeline > r.after and t.timeline <= r.upto and t.kind in ('s', 'm') and t.verdict = 'a'
        order by t.timeline desc
        limit %(most)s
    ) l
    cross join lateral (
        select n.type, n.sender, n.json
        from eventlog.events n
        where n.id = l.entry and n.kind = l.kind and n.kind in ('s', 'm')
        limit 1
    ) e
    where e.sender <> %(user_id)s
      and (%(types)s::text[] is null or e.type = any(%(types)s) or strpos(e.json, 'm.mentions') > 0)
) o

-- notification_basis --
-- What rules ask of rooms beside the event: how many are joined, and who may notify all.
select r.i::int, h.joined, s.type, s.entry
from unnest(%(rooms)s::bigint[]) with ordinality as r (room, i)
join roomserver.heads h on h.room = r.room
join roomserver.state s on s.room = r.room and s.line = 0 and s.valid_to = 9223372036854775807 and s.entry is not null
    and s.type in ('m.room.create', 'm.room.power_levels') and s.state_key = ''

-- entries_of_events --
-- Entries by event id.
select w.event_id, k.id
from unnest(%(event_ids)s::text[]) as w (event_id)
join eventlog.event_keys k on k.key = eventlog.event_key(w.event_id)

-- erased --
-- Which of some users asked to be forgotten.
select user_id from roomserver.erased where user_id = any(%(user_ids)s)

-- published --
-- Those of some rooms that are in the directory.
select room_id from roomserver.directory where room_id = any(%(room_ids)s)

-- invite_events --
-- The member events that invite a user to rooms.
select n.room_id, e.event_id, e.json
from roomserver.memberships m
join roomserver.rooms n on n.nid = m.room
join eventlog.events e on e.id = m.entry and e.kind = 's'
where m.user_id = %(user_id)s and m.membership = 'i' and n.room_id = any(%(room_ids)s)
