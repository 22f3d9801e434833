-- rooms --
-- Heads of rooms by room id.
select n.room_id, n.nid, n.room_version, h.extremities, h.depth, h.position, h.state_position, h.judged_seq, h.generation,
       h.joined, h.invited
from roomserver.rooms n
join roomserver.heads h on h.room = n.nid
where n.room_id = any (%(room_ids)s)

-- room_numbers --
-- Takes numbers for new rooms.
select nextval('roomserver.rooms_nid_seq') from generate_series(1, %(count)s)

-- state --
-- Current state of rooms for the keys asked.
select s.room, s.type, s.state_key, s.entry, e.event_id, e.json
from unnest(%(rooms)s::bigint[], %(types)s::text[], %(keys)s::text[]) as k (room, type, state_key)
join roomserver.state s on s.room = k.room and s.line = 0 and s.type = k.type and s.state_key = k.state_key
    and s.valid_to = 9223372036854775807
join eventlog.events e on e.id = s.entry and e.kind = 's'

-- events --
-- Events by id with the verdict on them, if they are known at all.
select e.event_id, i.id, o.verdict, o.line, o.position, o.timeline, e.room_id, e.json
from unnest(%(event_ids)s::text[]) as w (event_id)
join eventlog.event_keys i on i.key = eventlog.event_key(w.event_id)
join eventlog.events e on e.id = i.id
left join eventlog.outputs o on o.entry = i.id

-- early_redactions --
-- Redactions that came before these events, the earliest first.
select r.target, r.redaction, r.entry, e.json
from roomserver.early_redactions r
join eventlog.events e on e.id = r.entry and e.kind in ('s', 'm')
where r.target = any (%(targets)s)
order by r.position

-- state_at --
-- State of a room after a position on a line.
select s.type, s.state_key, e.event_id, s.entry
from roomserver.state_at_v2(%(room)s, %(line)s, %(position)s) s
join eventlog.events e on e.id = s.entry and e.kind = 's'

-- former --
-- What has stood at keys of a room's state, on any line, the latest first.
select e.event_id, e.id, e.json
from (
    select distinct s.entry
    from unnest(%(types)s::text[], %(keys)s::text[]) as k (type, state_key)
    join roomserver.state s on s.room = %(room)s and s.type = k.type and s.state_key = k.state_key
    where s.entry is not null
    order by s.entry desc
    limit %(most)s
) x
join eventlog.events e on e.id = x.entry and e.kind = 's'

-- next_line --
-- The number of a room's next state line.
select coalesce(max(line), 0) + 1 from roomserver.lines where room = %(room)s

-- receipts --
-- Receipts there are, with the place they point at.
select r.room, r.user_id, r.receipt_type, r.thread_id, r.event_position
from unnest(%(rooms)s::bigint[], %(users)s::text[], %(types)s::text[], %(threads)s::text[]) as k (room, user_id, type, thread)
join roomserver.receipts r on r.room = k.room and r.user_id = k.user_id and r.receipt_type = k.type and r.thread_id = k.thread

-- timeline_of --
-- Where in their rooms' timelines events are.
select w.event_id, o.room, o.timeline
from unnest(%(event_ids)s::text[]) as w (event_id)
join eventlog.event_keys i on i.key = eventlog.event_key(w.event_id)
join eventlog.outputs o on o.entry = i.id

-- aliases --
-- Aliases that are taken.
select alias, room_id from roomserver.aliases where alias = any (%(aliases)s)

-- rooms_of --
-- The rooms that users are in.
select m.user_id, array_agg(m.room)
from roomserver.memberships m
where m.user_id = any (%(users)s) and m.membership = 'j'
group by m.user_id

-- presences --
-- How users are present, and the rooms they are in.
select u.user_id,
       array(
           select m.room
           from roomserver.memberships m
           where m.user_id = u.user_id and m.membership = 'j'
           order by m.joined_at desc
           limit %(most)s
       ),
       p.presence, p.status_msg, p.changed, p.position
from unnest(%(users)s::text[]) as u (user_id)
left join roomserver.presence p on p.user_id = u.user_id

-- members --
-- A user's standing in rooms.
select room, user_id, membership from roomserver.memberships
where (user_id, room) in (select * from unnest(%(users)s::text[], %(rooms)s::bigint[]))

-- take --
-- Takes a shard: whoever had it stops at its next commit.
update eventlog.positions p
set owner = %(owner)s::uuid, pid = %(pid)s, clean = false
from (select component, shard, clean from eventlog.positions where component = 'roomserver' and shard = %(shard)s for update) b
where p.component = b.component and p.shard = b.shard
returning p.position, (p.lsn - '0/0'::pg_lsn)::bigint, b.clean

-- behind --
-- Since when entries of a shard may have no verdict, and what time it is.
select moved_at, clock_timestamp() from eventlog.positions where component = 'roomserver' and shard = %(shard)s

-- caught_up --
-- Notes that every entry of a shard from before a moment has a verdict, and tells where the log ends.
with caught_up as (
    update eventlog.positions set moved_at = greatest(moved_at, %(at)s)
    where component = 'roomserver' and shard = %(shard)s and owner = %(owner)s::uuid
)
select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint

-- leave --
-- Says that the shard was left in order.
update eventlog.positions set clean = true, pid = null
where component = 'roomserver' and shard = %(shard)s and owner = %(owner)s::uuid

-- store_lsn --
-- Notes that everything up to an LSN is done though it gave no output.
update eventlog.positions set lsn = greatest(lsn, %(lsn)s::pg_lsn)
where component = 'roomserver' and shard = %(shard)s and owner = %(owner)s::uuid

-- position --
-- Where the shard is.
select position, owner::text from eventlog.positions where component = 'roomserver' and shard = %(shard)s

-- lock --
-- One room server a shard: the second waits.
select pg_try_advisory_lock(1466004580, %(shard)s)

-- unjudged --
-- Entries of a shard that nobody judged yet, oldest first.
select e.id, e.kind, e.local, e.seq, e.event_id, e.room_id, e.type, e.state_key, e.sender, e.json
from eventlog.events e
where e.shard = %(shard)s and e.id >= %(since)s
  and not exists (select from eventlog.outputs o where o.entry = e.id and o.entry >= %(since)s)
  and not exists (select from roomserver.deferred d where d.entry = e.id)
order by e.id
limit %(most)s

-- judged --
-- Which of these entries have a verdict.
select entry from eventlog.outputs where entry = any (%(entries)s)

-- deferred --
-- What was passed over, in order, and which of the events that it waits for are still missing.
select d.reason,
       array(
           select m.event_id
           from unnest(d.missing) as m (event_id)
           where case
               when m.event_id = %(create)s || d.room_id then not exists (select from roomserver.rooms n where n.room_id = d.room_id)
               else not exists (
                   select from eventlog.event_keys i
                   join eventlog.outputs o on o.entry = i.id
                   where i.key = eventlog.event_key(m.event_id) and o.verdict not in ('t', 'q'))
           end
       ),
       e.id, e.kind, e.local, e.seq, e.event_id, e.room_id, e.type, e.state_key, e.sender, e.json
from roomserver.deferred d
join eventlog.events e on e.id = d.entry
where d.shard = %(shard)s
order by d.reason <> 'resolution', d.entry

-- attempt --
-- Counts an attempt before it is made, unless it is one over again that was broken off.
insert into roomserver.attempts as a (entry, attempts, last_error)
values (%(entry)s, 1, '')
on conflict (entry) do update set attempts = a.attempts + %(one)s, tried_at = now()
returning attempts, last_error

-- noted --
-- Entries that were passed over, or tried and not finished.
select d.entry from roomserver.deferred d where d.shard = %(shard)s
union
select a.entry from roomserver.attempts a

-- failed --
-- Notes what an attempt failed with.
update roomserver.attempts set last_error = %(error)s where entry = %(entry)s

-- flushed --
-- A shard's position and epoch, the end of the WAL that this look can have seen, and of what is safe on disk.
select position, epoch, (pg_current_wal_insert_lsn() - '0/0')::bigint, (pg_current_wal_flush_lsn() - '0/0')::bigint
from eventlog.positions where component = 'roomserver' and shard = %(shard)s

-- database_oid --
-- This database's OID, part of every slot name.
select oid::bigint from pg_database where datname = current_database()
