-- access --
-- What decides what a user may read of a room: their memberships and the history visibility over time, on every line.
select r.nid, r.room_version, r.shard, m.forgotten, a.content, t.of_member, t.line, t.valid_from, t.valid_to, t.value
from roomserver.rooms r
left join roomserver.memberships m on m.room = r.nid and m.user_id = %(user_id)s
left join roomserver.account_data a on a.user_id = %(user_id)s and a.room_id = '' and a.type = 'm.ignored_user_list'
left join lateral (
    (select true as of_member, s.line, s.valid_from, s.valid_to, s.membership::text as value
     from roomserver.state s
     where s.room = r.nid and s.type = 'm.room.member' and s.state_key = %(user_id)s
     order by s.line, s.valid_to desc
     limit 5000)
    union all
    (select false, s.line, s.valid_from, s.valid_to, e.json
     from roomserver.state s
     left join eventlog.events e on e.id = s.entry and e.kind = 's'
     where s.room = r.nid and s.type = 'm.room.history_visibility' and s.state_key = ''
     order by s.line, s.valid_to desc
     limit 5000)
) t on true
where r.room_id = %(room_id)s

-- lines --
-- Where state lines off a room's main line forked from it.
select line, base_position from roomserver.lines where room = %(room)s and line = any (%(lines)s)

-- page_backwards --
-- Accepted events of a room's timeline from an order down to another one, the latest first.
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from (
    select p.timeline, p.position, p.line, p.annotation, p.entry, p.kind
    from eventlog.outputs p
    where p.room = (select r.nid from roomserver.rooms r where r.room_id = %(room_id)s)
      and p.kind in ('s', 'm') and p.verdict = 'a' and p.timeline is not null
      and p.timeline <= %(upto)s and p.timeline > %(after)s
    order by p.timeline desc
    limit %(most)s
) o
cross join lateral (
    select n.event_id, n.type, n.state_key, n.sender, n.device_id, n.txn_id, n.json
    from eventlog.events n
    where n.id = o.entry and n.kind = o.kind and n.kind in ('s', 'm')
    limit 1
) e
left join roomserver.redactions x on x.target = e.event_id
order by o.timeline desc

-- page_forwards --
-- Accepted events of a room's timeline after an order up to another one, the earliest first.
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from (
    select p.timeline, p.position, p.line, p.annotation, p.entry, p.kind
    from eventlog.outputs p
    where p.room = (select r.nid from roomserver.rooms r where r.room_id = %(room_id)s)
      and p.kind in ('s', 'm') and p.verdict = 'a' and p.timeline is not null
      and p.timeline <= %(upto)s and p.timeline > %(after)s
    order by p.timeline
    limit %(most)s
) o
cross join lateral (
    select n.event_id, n.type, n.state_key, n.sender, n.device_id, n.txn_id, n.json
    from eventlog.events n
    where n.id = o.entry and n.kind = o.kind and n.kind in ('s', 'm')
    limit 1
) e
left join roomserver.redactions x on x.target = e.event_id
order by o.timeline

-- chosen_backwards --
-- Like page_backwards, among a bounded number of events those that a filter's types and senders let pass.
with scanned as materialized (
    select p.timeline, p.position, p.line, p.annotation, p.entry, p.kind
    from eventlog.outputs p
    where p.room = (select r.nid from roomserver.rooms r where r.room_id = %(room_id)s)
      and p.kind in ('s', 'm') and p.verdict = 'a' and p.timeline is not null
      and p.timeline <= %(upto)s and p.timeline > %(after)s
    order by p.timeline desc
    limit %(scan)s
),
chosen as (
    select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
           x.redaction
    from scanned o
    cross join lateral (
        select n.event_id, n.type, n.state_key, n.sender, n.device_id, n.txn_id, n.json
        from eventlog.events n
        where n.id = o.entry and n.kind = o.kind and n.kind in ('s', 'm')
        limit 1
    ) e
    left join roomserver.redactions x on x.target = e.event_id
    where (%(types)s::text[] is null or e.type like any (%(types)s::text[]))
      and not e.type like any (%(not_types)s::text[])
      and (%(senders)s::text[] is null or e.sender = any (%(senders)s::text[]))
      and not e.sender = any (%(not_senders)s::text[])
    order by o.timeline desc
    limit %(most)s
)
select c.timeline, c.position, c.line, c.annotation, c.event_id, c.type, c.state_key, c.sender, c.device_id, c.txn_id, c.json,
       c.redaction, w.scanned, w.last
from (select count(*) as scanned, min(timeline) as last from scanned) w
left join chosen c on true
order by c.timeline desc

-- chosen_forwards --
-- Like page_forwards, among a bounded number of events those that a filter's types and senders let pass.
with scanned as materialized (
    select p.timeline, p.position, p.line, p.annotation, p.entry, p.kind
    from eventlog.outputs p
    where p.room = (select r.nid from roomserver.rooms r where r.room_id = %(room_id)s)
      and p.kind in ('s', 'm') and p.verdict = 'a' and p.timeline is not null
      and p.timeline <= %(upto)s and p.timeline > %(after)s
    order by p.timeline
    limit %(scan)s
),
chosen as (
    select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
           x.redaction
    from scanned o
    cross join lateral (
        select n.event_id, n.type, n.state_key, n.sender, n.device_id, n.txn_id, n.json
        from eventlog.events n
        where n.id = o.entry and n.kind = o.kind and n.kind in ('s', 'm')
        limit 1
    ) e
    left join roomserver.redactions x on x.target = e.event_id
    where (%(types)s::text[] is null or e.type like any (%(types)s::text[]))
      and not e.type like any (%(not_types)s::text[])
      and (%(senders)s::text[] is null or e.sender = any (%(senders)s::text[]))
      and not e.sender = any (%(not_senders)s::text[])
    order by o.timeline
    limit %(most)s
)
select c.timeline, c.position, c.line, c.annotation, c.event_id, c.type, c.state_key, c.sender, c.device_id, c.txn_id, c.json,
       c.redaction, w.scanned, w.last
from (select count(*) as scanned, max(timeline) as last from scanned) w
left join chosen c on true
order by c.timeline

-- event --
-- One accepted event of a room's timeline.
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from eventlog.event_keys i
join eventlog.events e on e.id = i.id and e.kind in ('s', 'm')
join eventlog.outputs o on o.entry = e.id and o.kind = e.kind
left join roomserver.redactions x on x.target = e.event_id
where i.key = eventlog.event_key(%(event_id)s) and o.verdict = 'a' and o.timeline is not null
  and o.room = (select r.nid from roomserver.rooms r where r.room_id = %(room_id)s)

-- redactions --
-- The redactions of events, with the redacting events as long as the log has them.
select x.target, x.redaction, e.json, y.target is not null
from roomserver.redactions x
left join eventlog.events e on e.id = x.entry and e.kind in ('s', 'm')
left join roomserver.redactions y on y.target = x.redaction
where x.target = any (%(targets)s)

-- current_state --
-- The current state of a room.
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from roomserver.state s
join eventlog.events e on e.id = s.entry and e.kind = 's'
join eventlog.outputs o on o.entry = s.entry and o.kind = 's'
left join roomserver.redactions x on x.target = e.event_id
where s.room = (select r.nid from roomserver.rooms r where r.room_id = %(room_id)s)
  and s.line = 0 and s.valid_to = 9223372036854775807

-- current_members --
-- The current membership events of a room, of some memberships or all.
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from roomserver.state s
join eventlog.events e on e.id = s.entry and e.kind = 's'
join eventlog.outputs o on o.entry = s.entry and o.kind = 's'
left join roomserver.redactions x on x.target = e.event_id
where s.room = (select r.nid from roomserver.rooms r where r.room_id = %(room_id)s)
  and s.line = 0 and s.type = 'm.room.member' and s.valid_to = 9223372036854775807
  and (%(letters)s::text[] is null or s.membership::text = any (%(letters)s::text[]))

-- past_members --
-- The membership events of a room after a position on a line, of some memberships or all.
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from roomserver.state_at_v2(%(room)s, %(line)s, %(position)s) a
cross join lateral (
    select n.membership
    from roomserver.state n
    where n.room = %(room)s and n.type = a.type and n.state_key = a.state_key and n.valid_from = a.valid_from and n.entry = a.entry
    limit 1
) s
join eventlog.events e on e.id = a.entry and e.kind = 's'
join eventlog.outputs o on o.entry = a.entry and o.kind = 's'
left join roomserver.redactions x on x.target = e.event_id
where a.type = 'm.room.member' and (%(letters)s::text[] is null or s.membership::text = any (%(letters)s::text[]))

-- state_at --
-- The state of a room after a position on a line, of its members those who are named or all.
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from roomserver.state_at_v2(%(room)s, %(line)s, %(position)s) s
join eventlog.events e on e.id = s.entry and e.kind = 's'
join eventlog.outputs o on o.entry = s.entry and o.kind = 's'
left join roomserver.redactions x on x.target = e.event_id
where %(user_ids)s::text[] is null or s.type <> 'm.room.member' or s.state_key = any (%(user_ids)s::text[])

-- state_of_key --
-- The state event of one key after a position on the main line, the latest there is by default.
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from roomserver.state s
join eventlog.events e on e.id = s.entry and e.kind = 's'
join eventlog.outputs o on o.entry = s.entry and o.kind = 's'
left join roomserver.redactions x on x.target = e.event_id
where s.room = (select r.nid from roomserver.rooms r where r.room_id = %(room_id)s)
  and s.line = 0 and s.type = %(type)s and s.state_key = %(state_key)s
  and s.valid_from <= %(position)s and s.valid_to > %(position)s

-- members_at --
-- The membership events of some users after a position on the main line.
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from roomserver.state s
join eventlog.events e on e.id = s.entry and e.kind = 's'
join eventlog.outputs o on o.entry = s.entry and o.kind = 's'
left join roomserver.redactions x on x.target = e.event_id
where s.room = %(room)s and s.line = 0 and s.type = 'm.room.member' and s.state_key = any (%(user_ids)s)
  and s.valid_from <= %(position)s and s.valid_to > %(position)s

-- position_at --
-- The line and position of the last event of a room's timeline up to an order.
select p.line, p.position
from eventlog.outputs p
where p.room = %(room)s and p.kind in ('s', 'm') and p.timeline is not null and p.timeline <= %(order)s
order by p.timeline desc
limit 1

-- first_member --
-- The position at which a room had its first member.
select s.valid_from
from roomserver.state s
where s.room = %(room)s and s.line = 0 and s.type = 'm.room.member'
order by s.valid_from
limit 1

-- joined_members --
-- The membership events of those who are in a room.
select s.state_key, e.json, x.redaction is not null
from roomserver.state s
join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = e.event_id
where s.room = (select r.nid from roomserver.rooms r where r.room_id = %(room_id)s)
  and s.line = 0 and s.type = 'm.room.member' and s.valid_to = 9223372036854775807 and s.membership = 'j'

-- joined_rooms --
-- The rooms a user is in.
select r.room_id
from roomserver.memberships m
join roomserver.rooms r on r.nid = m.room
where m.user_id = %(user_id)s and m.membership = 'j'

-- related_backwards --
-- Events in a stretch of the timeline that relate to one directly or over up to two others, the latest first.
with direct as materialized (
    select l.event_id, l.timeline, l.entry
    from roomserver.relations l
    where l.target = %(target)s and (%(recurse)s or (l.timeline <= %(upto)s and l.timeline > %(after)s)) and l.room = %(room)s
      and (%(rel_type)s::text is null or l.rel_type = %(rel_type)s)
      and not exists (select from roomserver.redactions x where x.target = l.event_id)
      and (%(type)s::text is null
           or exists (select from eventlog.events e where e.id = l.entry and e.kind in ('s', 'm') and e.type = %(type)s))
    order by l.timeline desc
    limit 5000
),
second as materialized (
    select l.event_id, l.timeline, l.entry
    from roomserver.relations l
    where %(recurse)s and l.target in (select d.event_id from direct d) and l.room = %(room)s
      and (%(rel_type)s::text is null or l.rel_type = %(rel_type)s)
      and not exists (select from roomserver.redactions x where x.target = l.event_id)
      and (%(type)s::text is null
           or exists (select from eventlog.events e where e.id = l.entry and e.kind in ('s', 'm') and e.type = %(type)s))
    order by l.timeline desc
    limit 5000
),
third as materialized (
    select l.event_id, l.timeline, l.entry
    from roomserver.relations l
    where %(recurse)s and l.target in (select d.event_id from second d) and l.room = %(room)s
      and (%(rel_type)s::text is null or l.rel_type = %(rel_type)s)
      and not exists (select from roomserver.redactions x where x.target = l.event_id)
      and (%(type)s::text is null
           or exists (select from eventlog.events e where e.id = l.entry and e.kind in ('s', 'm') and e.type = %(type)s))
    order by l.timeline desc
    limit 5000
),
found as (
    select event_id, timeline, entry from direct
    union
    select event_id, timeline, entry from second
    union
    select event_id, timeline, entry from third
)
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       null
from found f
join eventlog.events e on e.id = f.entry and e.kind in ('s', 'm')
join eventlog.outputs o on o.entry = e.id and o.kind = e.kind
where f.timeline <= %(upto)s and f.timeline > %(after)s and f.event_id <> %(target)s
order by f.timeline desc
limit %(most)s

-- related_forwards --
-- Events in a stretch of the timeline that relate to one directly or over up to two others, the earliest first.
with direct as materialized (
    select l.event_id, l.timeline, l.entry
    from roomserver.relations l
    where l.target = %(target)s and (%(recurse)s or (l.timeline <= %(upto)s and l.timeline > %(after)s)) and l.room = %(room)s
      and (%(rel_type)s::text is null or l.rel_type = %(rel_type)s)
      and not exists (select from roomserver.redactions x where x.target = l.event_id)
      and (%(type)s::text is null
           or exists (select from eventlog.events e where e.id = l.entry and e.kind in ('s', 'm') and e.type = %(type)s))
    order by l.timeline
    limit 5000
),
second as materialized (
    select l.event_id, l.timeline, l.entry
    from roomserver.relations l
    where %(recurse)s and l.target in (select d.event_id from direct d) and l.room = %(room)s
      and (%(rel_type)s::text is null or l.rel_type = %(rel_type)s)
      and not exists (select from roomserver.redactions x where x.target = l.event_id)
      and (%(type)s::text is null
           or exists (select from eventlog.events e where e.id = l.entry and e.kind in ('s', 'm') and e.type = %(type)s))
    order by l.timeline
    limit 5000
),
third as materialized (
    select l.event_id, l.timeline, l.entry
    from roomserver.relations l
    where %(recurse)s and l.target in (select d.event_id from second d) and l.room = %(room)s
      and (%(rel_type)s::text is null or l.rel_type = %(rel_type)s)
      and not exists (select from roomserver.redactions x where x.target = l.event_id)
      and (%(type)s::text is null
           or exists (select from eventlog.events e where e.id = l.entry and e.kind in ('s', 'm') and e.type = %(type)s))
    order by l.timeline
    limit 5000
),
found as (
    select event_id, timeline, entry from direct
    union
    select event_id, timeline, entry from second
    union
    select event_id, timeline, entry from third
)
select o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       null
from found f
join eventlog.events e on e.id = f.entry and e.kind in ('s', 'm')
join eventlog.outputs o on o.entry = e.id and o.kind = e.kind
where f.timeline <= %(upto)s and f.timeline > %(after)s and f.event_id <> %(target)s
order by f.timeline
limit %(most)s

-- summaries --
-- Rooms as they now are: what describes them, a user's membership, and the children of spaces.
select n.room_id, n.room_version, h.joined, m.membership::text,
       (select json_agg(json_build_array(s.type, e.json::json, x.target is not null))
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = e.event_id
        where s.room = n.nid and s.line = 0 and s.valid_to = 9223372036854775807 and s.state_key = ''
          and s.type = any (%(types)s::text[]))::text,
       (select json_agg(json_build_array(c.state_key, c.json))
        from (
            select s.state_key, e.json::json as json
            from roomserver.state s
            join eventlog.events e on e.id = s.entry and e.kind = 's'
            where %(children)s and s.room = n.nid and s.line = 0 and s.valid_to = 9223372036854775807 and s.type = 'm.space.child'
              and not exists (select from roomserver.redactions x where x.target = e.event_id)
            order by s.valid_from
            limit %(most_children)s
        ) c)::text
from roomserver.rooms n
join roomserver.heads h on h.room = n.nid
left join roomserver.memberships m on m.room = n.nid and m.user_id = %(user_id)s
where n.room_id = any (%(room_ids)s::text[])

-- mutual_rooms --
-- Rooms that two users are both in, after one of them in the order of their numbers, and how many there are in all.
with shared as materialized (
    select m.room
    from roomserver.memberships m
    join roomserver.memberships o on o.room = m.room and o.user_id = %(other_id)s and o.membership = 'j'
    where m.user_id = %(user_id)s and m.membership = 'j'
)
select s.room, n.room_id, (select count(*) from shared)
from shared s
join roomserver.rooms n on n.nid = s.room
where s.room > %(after)s
order by s.room
limit %(most)s

-- of_room --
-- Whether a room is published, a user's membership in it, and their account data of it, a row each.
select exists (select from roomserver.directory d where d.room_id = n.room_id), m.membership::text, a.type, a.content
from roomserver.rooms n
left join roomserver.memberships m on m.room = n.nid and m.user_id = %(user_id)s
left join roomserver.account_data a on a.user_id = %(user_id)s and a.room_id = n.room_id
where n.room_id = %(room_id)s

-- room_of_event --
-- The room of an event.
select e.room_id
from eventlog.event_keys k
join eventlog.events e on e.id = k.id and e.kind in ('s', 'm')
where k.key = eventlog.event_key(%(event_id)s)

-- joined_among --
-- Those of some rooms that a user is in.
select n.room_id
from roomserver.rooms n
join roomserver.memberships m on m.room = n.nid and m.user_id = %(user_id)s and m.membership = 'j'
where n.room_id = any (%(room_ids)s::text[])

-- room_of_alias --
-- The room an alias points to.
select room_id from roomserver.aliases where alias = %(alias)s

-- threads --
-- Roots of a room's threads by their latest visible reply, among a bounded number of replies; how many those were, and the earliest.
with scanned as materialized (
    select l.target, l.timeline, l.event_id, l.sender
    from roomserver.relations l
    where l.room = %(room)s and l.rel_type = 'm.thread' and l.timeline <= %(near)s
    order by l.timeline desc
    limit %(scan)s
),
latest as (
    select s.target, max(s.timeline) as timeline
    from scanned s
    where s.sender <> all (%(ignored)s::text[])
      and exists (
          select from unnest(%(after)s::bigint[], %(upto)s::bigint[]) as p (after, upto)
          where s.timeline > p.after and s.timeline <= p.upto)
      and not exists (select from roomserver.redactions x where x.target = s.event_id)
    group by s.target
),
page as (
    select t.timeline as latest, o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender,
           e.device_id, e.txn_id, e.json, x.redaction
    from latest t
    join eventlog.event_keys i on i.key = eventlog.event_key(t.target)
    join eventlog.events e on e.id = i.id and e.kind in ('s', 'm')
    join eventlog.outputs o on o.entry = e.id and o.kind = e.kind and o.room = %(room)s and o.verdict = 'a' and o.timeline is not null
    left join roomserver.redactions x on x.target = e.event_id
    where not exists (
        select from roomserver.relations l
        where l.target = t.target and l.rel_type = 'm.thread' and l.room = %(room)s and l.timeline > %(near)s
          and l.sender <> all (%(ignored)s::text[])
          and exists (
              select from unnest(%(after)s::bigint[], %(upto)s::bigint[]) as p (after, upto)
              where l.timeline > p.after and l.timeline <= p.upto)
          and not exists (select from roomserver.redactions y where y.target = l.event_id))
      and (not %(participated)s or e.sender = %(user_id)s
           or exists (
               select from roomserver.relations l
               where l.target = t.target and l.rel_type = 'm.thread' and l.room = %(room)s and l.sender = %(user_id)s
                 and not exists (select from roomserver.redactions y where y.target = l.event_id)))
    order by t.timeline desc
    limit %(most)s
)
select p.timeline, p.position, p.line, p.annotation, p.event_id, p.type, p.state_key, p.sender, p.device_id, p.txn_id, p.json,
       p.redaction, p.latest, b.scanned, b.last
from (select count(*) as scanned, min(s.timeline) as last from scanned s) b
left join page p on true
order by p.latest desc

-- epochs --
-- Every epoch with its parent and where it forked.
select epoch, parent, forked_at from eventlog.epochs

-- erased --
-- Which of some users asked to be forgotten.
select user_id from roomserver.erased where user_id = any (%(user_ids)s)
