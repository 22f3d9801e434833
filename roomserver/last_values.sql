-- receipts --
-- The last accepted receipt of each kind. Receipts older than the log stand as they are: the table is their record.
with entries as (
    select o.room, e.sender as user_id, e.json::json as body, o.shard, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'm.receipt' and (%(room)s::bigint is null or o.room = %(room)s)
),
last as (
    select distinct on (n.room, n.user_id, n.body ->> 'receipt_type', coalesce(n.body ->> 'thread_id', ''))
           n.room, n.user_id, (n.body ->> 'receipt_type') collate "C" as receipt_type,
           coalesce(n.body ->> 'thread_id', '') collate "C" as thread_id, (n.body ->> 'event_id') collate "C" as event_id,
           (n.body ->> 'ts')::bigint as ts, n.shard, n.position
    from entries n
    order by n.room, n.user_id, n.body ->> 'receipt_type', coalesce(n.body ->> 'thread_id', ''), n.position desc
),
stored as (
    select r.room, r.user_id, r.receipt_type, r.thread_id, r.event_id, r.event_position, r.ts, r.shard, r.position
    from roomserver.receipts r
    where %(room)s::bigint is null or r.room = %(room)s
),
rebuilt as (
    -- Where an event was that retention took, the table of record tells.
    select l.room, l.user_id, l.receipt_type, l.thread_id, l.event_id,
           case when i.id is null then s.event_position else o.timeline end as event_position, l.ts, l.shard, l.position
    from last l
    left join eventlog.event_keys i on i.key = eventlog.event_key(l.event_id)
    left join eventlog.outputs o on o.entry = i.id and o.kind in ('s', 'm')
    left join stored s on s.room = l.room and s.user_id = l.user_id and s.receipt_type = l.receipt_type
        and s.thread_id = l.thread_id and s.event_id = l.event_id
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (room, user_id, receipt_type, thread_id)
where s is distinct from r and (r.room is not null or s.position > (select k.position from edge k))
order by r.room is not null, room, user_id, receipt_type, thread_id
limit %(most)s

-- account_data --
-- The last accepted account data of each type. What is older than the log stands as it is.
with entries as (
    select e.sender as user_id, history.safe_json(e.json) as body, o.shard, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'account_data'
),
rebuilt as (
    select distinct on (n.user_id, n.body ->> 'room_id', n.body ->> 'type')
           n.user_id, (n.body ->> 'room_id') collate "C" as room_id, (n.body ->> 'type') collate "C" as type,
           replace(replace((n.body -> 'content')::text, U&'\+10FFFF0', '\u0000'), U&'\+10FFFF1', U&'\+10FFFF') as content,
           n.shard, n.position
    from entries n
    order by n.user_id, n.body ->> 'room_id', n.body ->> 'type', n.position desc
),
stored as (
    select a.user_id, a.room_id, a.type, a.content, a.shard, a.position from roomserver.account_data a
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (user_id, room_id, type)
where s is distinct from r and (r.user_id is not null or s.position > (select k.position from edge k))
order by r.user_id is not null, user_id, room_id, type
limit %(most)s

-- profiles --
-- The last accepted value of each profile field, unless that removed it. What is older than the log stands as it is.
with entries as (
    select e.sender as user_id, history.safe_json(e.json) as body, o.shard, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'profile'
),
last as (
    select distinct on (n.user_id, n.body ->> 'field')
           n.user_id, (n.body ->> 'field') collate "C" as field,
           replace(replace((n.body -> 'value')::text, U&'\+10FFFF0', '\u0000'), U&'\+10FFFF1', U&'\+10FFFF') as value,
           n.shard, n.position
    from entries n
    order by n.user_id, n.body ->> 'field', n.position desc
),
rebuilt as (select l.user_id, l.field, l.value, l.shard, l.position from last l where l.value <> 'null'),
stored as (select f.user_id, f.field, f.value, f.shard, f.position from roomserver.profiles f),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (user_id, field)
where s is distinct from r and (
    r.user_id is not null or s.position > (select k.position from edge k)
    or exists (select from last l where l.user_id = s.user_id and l.field = s.field))
order by r.user_id is not null, user_id, field
limit %(most)s

-- presence --
-- The last accepted presence of each user. What is older than the log stands as it is.
with entries as (
    select e.sender as user_id, history.safe_json(e.json) as body, o.annotation, o.shard, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'presence'
),
stored as (
    select p.user_id, p.presence, p.status_msg, p.active_at, p.until, p.by, p.changed, p.shard, p.position from roomserver.presence p
),
changed as (
    select n.user_id, max(n.position) filter (where n.annotation is not null) as position,
           -- A status holds until another one is given.
           (array_agg(n.body ->> 'status_msg' order by n.position desc) filter (where (n.body -> 'status_msg') is not null))[1]
               as status_msg,
           bool_or((n.body -> 'status_msg') is not null) as has_status
    from entries n
    group by n.user_id
),
rebuilt as (
    select distinct on (n.user_id)
           n.user_id, (n.body ->> 'presence') collate "C" as presence,
           case when c.has_status then c.status_msg else s.status_msg end as status_msg,
           (n.body ->> 'active_at')::bigint as active_at, (n.body ->> 'until')::bigint as until,
           (n.body ->> 'by') collate "C" as by, coalesce(c.position, s.changed) as changed, n.shard, n.position
    from entries n
    join changed c on c.user_id = n.user_id
    left join stored s on s.user_id = n.user_id
    order by n.user_id, n.position desc
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (user_id)
where s is distinct from r and (r.user_id is not null or s.position > (select k.position from edge k))
order by r.user_id is not null, user_id
limit %(most)s

-- aliases --
-- Where the last accepted entry of each alias points, unless that removed it. What is older than the log stands as it is.
with last as (
    select distinct on (e.json::json ->> 'alias')
           (e.json::json ->> 'alias') collate "C" as alias, (e.json::json ->> 'room_id') collate "C" as room_id, e.sender as creator, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'alias'
    order by e.json::json ->> 'alias', o.position desc
),
rebuilt as (select l.alias, l.room_id, l.creator, l.position from last l where l.room_id is not null),
stored as (select a.alias, a.room_id, a.creator, a.position from roomserver.aliases a),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (alias)
where s is distinct from r and (
    r.alias is not null or s.position > (select k.position from edge k)
    or exists (select from last l where l.alias = s.alias))
order by r.alias is not null, alias
limit %(most)s

-- directory --
-- Rooms whose last accepted entry says that they are published. What is older than the log stands as it is.
with last as (
    select distinct on (e.json::json ->> 'room_id')
           (e.json::json ->> 'room_id') collate "C" as room_id, (e.json::json ->> 'published')::boolean as published, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'directory' and (%(room)s::bigint is null or o.room = %(room)s)
    order by e.json::json ->> 'room_id', o.position desc
),
rebuilt as (select l.room_id, l.position from last l where l.published),
stored as (
    select d.room_id, d.position
    from roomserver.directory d
    where %(room)s::bigint is null or d.room_id = (select n.room_id from roomserver.rooms n where n.nid = %(room)s)
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (room_id)
where s is distinct from r and (
    r.room_id is not null or s.position > (select k.position from edge k)
    or exists (select from last l where l.room_id = s.room_id))
order by r.room_id is not null, room_id
limit %(most)s

-- reports --
-- What users have reported. What is older than the log stands as it is.
with rebuilt as (
    select e.id as entry, e.sender as reporter, (history.safe_json(e.json) ->> 'room_id') collate "C" as room_id,
           (history.safe_json(e.json) ->> 'event_id') collate "C" as event_id,
           (history.safe_json(e.json) ->> 'user_id') collate "C" as user_id,
           history.safe_json(e.json) ->> 'reason' as reason, o.shard, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'report'
),
stored as (
    select p.entry, p.reporter, p.room_id, p.event_id, p.user_id, p.reason, p.shard, p.position from roomserver.reports p
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (entry)
where s is distinct from r and (r.entry is not null or s.position > (select k.position from edge k))
order by r.entry is not null, entry
limit %(most)s

-- user_keys --
-- The last accepted key of each device and usage, unless that removed it. What is older than the log stands as it is.
with entries as (
    select e.sender as user_id, k.value as key, o.shard, o.position, k.place
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    cross join lateral json_array_elements(history.safe_json(e.json)::json -> 'keys') with ordinality as k (value, place)
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'keys'
),
last as (
    select distinct on (n.user_id, n.key ->> 'usage', n.key ->> 'id')
           n.user_id, (n.key ->> 'usage') collate "C" as usage,
           -- An id stands in the log as it does here, NUL-safe.
           replace(n.key ->> 'id', U&'\+10FFFF1', U&'\+10FFFF') collate "C" as key_id,
           replace(replace((n.key -> 'key')::text, U&'\+10FFFF0', '\u0000'), U&'\+10FFFF1', U&'\+10FFFF') as key,
           n.shard, n.position
    from entries n
    order by n.user_id, n.key ->> 'usage', n.key ->> 'id', n.position desc, n.place desc
),
rebuilt as (select l.user_id, l.usage, l.key_id, l.key, l.shard, l.position from last l where l.key <> 'null'),
stored as (select k.user_id, k.usage, k.key_id, k.key, k.shard, k.position from roomserver.user_keys k),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (user_id, usage, key_id)
where s is distinct from r and (
    r.user_id is not null or s.position > (select k.position from edge k)
    or exists (select from last l where l.user_id = s.user_id and l.usage = s.usage and l.key_id = s.key_id))
order by r.user_id is not null, user_id, usage, key_id
limit %(most)s

-- device_lists --
-- When each user's keys last changed, signatures on others' aside. What is older than the log stands as it is.
with rebuilt as (
    select distinct on (e.sender) e.sender as user_id, o.shard, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'keys' and o.annotation is not null
    order by e.sender, o.position desc
),
stored as (select d.user_id, d.shard, d.position from roomserver.device_lists d),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (user_id)
where s is distinct from r and (r.user_id is not null or s.position > (select k.position from edge k))
order by r.user_id is not null, user_id
limit %(most)s

-- to_device --
-- Messages to devices that were neither got nor sent to a device that has gone since. What is older than the log stands as it is.
with said as (
    select e.id, e.type, e.sender, history.safe_json(e.json)::json as body, o.shard, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type in ('to_device', 'received', 'keys')
),
sent as (
    select u.key collate "C" as user_id, replace(d.key, U&'\+10FFFF1', U&'\+10FFFF') collate "C" as device_id, s.shard, s.position, s.sender, s.id,
           (s.body ->> 'type') collate "C" as type,
           replace(replace(d.value::text, U&'\+10FFFF0', '\u0000'), U&'\+10FFFF1', U&'\+10FFFF') as content
    from said s
    cross join lateral json_each(s.body -> 'messages') as u (key, value)
    cross join lateral json_each(u.value) as d (key, value)
    where s.type = 'to_device'
),
got as (
    select s.sender as user_id, replace(s.body ->> 'device_id', U&'\+10FFFF1', U&'\+10FFFF') as device_id, s.body -> 'upto' as upto from said s where s.type = 'received'
),
gone as (
    select s.sender as user_id, replace(k.value ->> 'id', U&'\+10FFFF1', U&'\+10FFFF') as device_id, s.id, s.shard, s.position
    from said s
    cross join lateral json_array_elements(s.body -> 'keys') as k (value)
    where s.type = 'keys' and k.value ->> 'usage' = 'device' and (k.value -> 'key')::text = 'null'
),
rebuilt as (
    select m.user_id, m.device_id, m.shard, m.position, m.sender, m.type, m.content
    from sent m
    where not exists (
        select from got g
        where g.user_id = m.user_id and g.device_id = m.device_id and (g.upto ->> m.shard)::bigint >= m.position
    )
    and not exists (
        select from gone g
        where g.user_id = m.user_id and g.device_id = m.device_id
          and case when g.shard = m.shard then g.position > m.position else g.id > m.id end
    )
),
stored as (
    select t.user_id, t.device_id, t.shard, t.position, t.sender, t.type, t.content from roomserver.to_device t
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (user_id, device_id, shard, position)
where s is distinct from r and (r.user_id is not null or s.position > (select k.position from edge k))
order by r.user_id is not null, user_id, device_id, shard, position
limit %(most)s
