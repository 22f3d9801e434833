-- room --
-- The number of a room.
select nid from roomserver.rooms where room_id = %(room_id)s

-- lock --
-- Keeps the room server of a shard away, if none is running.
select pg_try_advisory_lock(1466004580, s) from generate_series(0, (select shards - 1 from eventlog.installation)) as g (s)

-- unlock --
-- Lets the room servers in again.
select pg_advisory_unlock(1466004580, s) from generate_series(0, (select shards - 1 from eventlog.installation)) as g (s)

-- rooms --
-- Rooms, each begun by an accepted create event.
with rebuilt as (
    select o.room as nid, e.room_id,
           coalesce(history.safe_json(e.json) #>> '{content,room_version}', '1') collate "C" as room_version, o.shard
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 's'
    where o.kind = 's' and o.verdict = 'a' and e.type = 'm.room.create'
      and (%(room)s::bigint is null or o.room = %(room)s)
),
stored as (
    select n.nid, n.room_id, n.room_version, n.shard
    from roomserver.rooms n
    where %(room)s::bigint is null or n.nid = %(room)s
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (nid)
where s is distinct from r
order by r.nid is not null, nid
limit %(most)s

-- state --
-- The main line of every room's state: an output says either that its event took its key or all keys that changed.
with changes as (
    select o.room, o.position, e.type, e.state_key, e.id as entry
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 's'
    where o.kind = 's' and o.verdict = 'a' and history.safe_json(o.annotation) ->> 'current' = 'true'
      and (%(room)s::bigint is null or o.room = %(room)s)
    union all
    select o.room, o.position, (d ->> 0) collate "C", (d ->> 1) collate "C", (d ->> 3)::bigint
    from eventlog.outputs o
    cross join json_array_elements(history.safe_json(o.annotation) -> 'state') d
    where o.kind in ('s', 'm') and o.verdict = 'a' and position('"state":' in o.annotation) > 0
      and (%(room)s::bigint is null or o.room = %(room)s)
),
spans as (
    select c.room, c.type, c.state_key, c.position as valid_from,
           coalesce(lead(c.position) over (partition by c.room, c.type, c.state_key order by c.position),
                    9223372036854775807) as valid_to,
           c.entry
    from changes c
),
rebuilt as (
    select p.room, 0 as line, p.type, p.state_key, p.valid_from, p.valid_to, p.entry,
           (case when p.type = 'm.room.member' then
               case history.safe_json(e.json) #>> '{content,membership}'
                   when 'join' then 'j' when 'invite' then 'i' when 'leave' then 'l' when 'ban' then 'b'
                   when 'knock' then 'k' end
            end)::"char" as membership
    from spans p
    join eventlog.events e on e.id = p.entry and e.kind = 's'
    where p.entry is not null
),
stored as (
    select s.room, s.line, s.type, s.state_key, s.valid_from, s.valid_to, s.entry, s.membership
    from roomserver.state s
    where s.line = 0 and (%(room)s::bigint is null or s.room = %(room)s)
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (room, type, state_key, valid_from)
where s is distinct from r
-- What stands now comes last: by then no wrong row of its key stands.
order by r.room is not null, r.valid_to = 9223372036854775807, room, type, state_key, valid_from
limit %(most)s

-- memberships --
-- Each user's last membership in a room; a stay begins where "join" follows something else, and forgetting follows leaving.
with changes as (
    select o.room, o.position, o.entry as cause, e.state_key, e.id as entry
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 's'
    where o.kind = 's' and o.verdict = 'a' and e.type = 'm.room.member'
      and history.safe_json(o.annotation) ->> 'current' = 'true'
      and (%(room)s::bigint is null or o.room = %(room)s)
    union all
    select o.room, o.position, o.entry, (d ->> 1) collate "C", (d ->> 3)::bigint
    from eventlog.outputs o
    cross join json_array_elements(history.safe_json(o.annotation) -> 'state') d
    where o.kind in ('s', 'm') and o.verdict = 'a' and position('"state":' in o.annotation) > 0
      and d ->> 0 = 'm.room.member'
      and (%(room)s::bigint is null or o.room = %(room)s)
),
letters as (
    select c.room, c.state_key, c.position, coalesce(c.entry, c.cause) as entry, e.sender,
           case history.safe_json(e.json) #>> '{content,membership}'
               when 'join' then 'j' when 'invite' then 'i' when 'leave' then 'l' when 'ban' then 'b' when 'knock' then 'k'
           end as letter
    from changes c
    left join eventlog.events e on e.id = c.entry and e.kind = 's'
),
steps as (
    -- A resolution may take a membership away: whose it was has left.
    select l.room, l.state_key, l.position, l.entry, coalesce(l.letter, 'l') as membership,
           coalesce(l.sender, lag(l.sender) over each_user) as sender,
           l.letter = 'j' and lag(l.letter) over each_user is distinct from 'j' as begins
    from letters l
    window each_user as (partition by l.room, l.state_key order by l.position)
),
last as (
    select distinct on (t.room, t.state_key)
           replace(t.state_key, U&'\+10FFFF1', U&'\+10FFFF') as user_id, t.room, t.membership, t.position, t.entry, t.sender,
           max(t.position) filter (where t.begins) over (partition by t.room, t.state_key) as joined_at
    from steps t
    order by t.room, t.state_key, t.position desc
),
forgets as (
    select o.room, e.sender as user_id, max(o.position) as position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = 'u'
    where o.kind = 'u' and o.verdict = 'a' and e.type = 'forget'
      and (%(room)s::bigint is null or o.room = %(room)s)
    group by o.room, e.sender
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'u'
),
stored as (
    select m.user_id, m.room, m.membership, m.position, m.entry, m.sender, m.joined_at, m.forgotten
    from roomserver.memberships m
    where %(room)s::bigint is null or m.room = %(room)s
),
rebuilt as (
    select l.user_id, l.room, l.membership::"char" as membership, l.position, l.entry, l.sender, l.joined_at,
           l.membership in ('l', 'b') and (
               coalesce(f.position > l.position, false)
               -- What was forgotten before the oldest user entry that the log still has, the table of record tells.
               or exists (select from stored s, edge k
                          where s.user_id = l.user_id and s.room = l.room and s.forgotten
                            and s.position = l.position and s.position <= k.position)
           ) as forgotten
    from last l
    left join forgets f on f.room = l.room and f.user_id = l.user_id
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (user_id, room)
where s is distinct from r
order by r.room is not null, room, user_id
limit %(most)s

-- heads --
-- Where each room stands: extremities are accepted events that no accepted event follows, be it behind some that were soft-failed or
-- rejected. Of what came before the last message that retention took, the table of record tells which are extremities: what named the
-- others may have gone.
with recursive judged as materialized (
    select o.room, o.position, o.entry, o.verdict, o.annotation, e.event_id, history.safe_json(e.json) as pdu
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = o.kind
    where o.kind in ('s', 'm') and o.room is not null and (%(room)s::bigint is null or o.room = %(room)s)
),
previous as materialized (
    -- Old room versions name an event with its hash.
    select j.room, j.event_id as by, j.verdict,
           replace(case when json_typeof(p) = 'array' then p ->> 0 else p #>> '{}' end,
                   U&'\+10FFFF1', U&'\+10FFFF') as event_id
    from judged j
    cross join json_array_elements(j.pdu -> 'prev_events') p
    where j.verdict in ('a', 's', 'r')
),
named as (
    select p.room, p.event_id, 1 as steps from previous p where p.verdict = 'a'
    union
    -- As far as roomserver.forks.MOST_NOT_ACCEPTED.
    select n.room, p.event_id, n.steps + 1
    from named n
    join previous p on p.room = n.room and p.by = n.event_id and p.verdict <> 'a'
    where n.steps < 100
),
gaps as (
    select n.nid as room, greatest(max(g.entry), max(eventlog.id_at(coalesce(x.ended_at, now()) + interval '1 second')) filter (where x.id is not null)) as entry
    from roomserver.rooms n
    left join eventlog.edges g on g.kind = 'm'
    left join eventlog.erasures x on x.subject = n.room_id and x.action in ('policy', 'history')
    where %(room)s::bigint is null or n.nid = %(room)s
    group by n.nid
),
ends as (
    select j.room, array_agg(j.event_id order by j.event_id) as extremities
    from judged j
    left join gaps g on g.room = j.room
    where j.verdict = 'a' and not exists (select from named n where n.room = j.room and n.event_id = j.event_id)
      and (g.entry is null or j.entry >= g.entry
           or exists (select from roomserver.heads h where h.room = j.room and j.event_id = any (h.extremities)))
    group by j.room
),
chains as (
    -- Also what could not be judged at all moves the chain on, and its output names no room.
    select n.nid as room, max(e.seq) as judged_seq
    from eventlog.events e
    join roomserver.rooms n on n.room_id = e.room_id
    where e.kind in ('s', 'm') and e.seq is not null and (%(room)s::bigint is null or n.nid = %(room)s)
      and exists (select from eventlog.outputs o where o.entry = e.id and o.kind = e.kind)
    group by n.nid
),
members as (
    select distinct on (j.room, m ->> 0) j.room, m ->> 1 as letter
    from judged j
    cross join json_array_elements(history.safe_json(j.annotation) -> 'members') m
    where j.verdict = 'a' and position('"members":' in j.annotation) > 0
    order by j.room, m ->> 0, j.position desc
),
counts as (
    select m.room, count(*) filter (where m.letter = 'j') as joined, count(*) filter (where m.letter = 'i') as invited
    from members m
    group by m.room
),
summary as (
    select j.room, max(j.position) as position, max((j.pdu ->> 'depth')::bigint) filter (where j.verdict = 'a') as depth,
           max(j.position) filter (
               where j.verdict = 'a' and j.annotation is not null
                 and (history.safe_json(j.annotation) ->> 'current' = 'true'
                      or json_typeof(history.safe_json(j.annotation) -> 'state') = 'array')) as state_position
    from judged j
    group by j.room
),
rebuilt as (
    select u.room, coalesce(x.extremities, '{}') as extremities, u.depth, u.position, u.state_position,
           coalesce(c.judged_seq, 0) as judged_seq, coalesce(k.joined, 0)::integer as joined,
           coalesce(k.invited, 0)::integer as invited
    from summary u
    left join ends x on x.room = u.room
    left join chains c on c.room = u.room
    left join counts k on k.room = u.room
),
stored as (
    select h.room, array(select x from unnest(h.extremities) x order by x) as extremities, h.depth, h.position,
           h.state_position, h.judged_seq, h.joined, h.invited
    from roomserver.heads h
    where %(room)s::bigint is null or h.room = %(room)s
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (room)
where s is distinct from r
order by r.room is not null, room
limit %(most)s

-- redactions --
-- The first redaction of each event that took effect. Redactions older than the messages in the log stand as they are.
with entries as (
    select replace(history.safe_json(o.annotation) ->> 'redacts', U&'\+10FFFF1', U&'\+10FFFF') collate "C" as target,
           -- One that came before its target takes effect with the target's output, which says which one it was.
           coalesce(replace(history.safe_json(o.annotation) #>> '{redaction,0}', U&'\+10FFFF1', U&'\+10FFFF') collate "C",
                    e.event_id) as redaction,
           coalesce((history.safe_json(o.annotation) #>> '{redaction,1}')::bigint, o.entry) as entry, o.room, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = o.kind
    where o.kind in ('s', 'm') and o.verdict = 'a' and position('"redacts":' in o.annotation) > 0
      and (%(room)s::bigint is null or o.room = %(room)s)
),
rebuilt as (
    select distinct on (n.target) n.target, n.redaction, n.entry, n.room, n.position
    from entries n
    where n.target is not null
    order by n.target, n.position
),
stored as (
    select d.target, d.redaction, d.entry, d.room, d.position
    from roomserver.redactions d
    where %(room)s::bigint is null or d.room = %(room)s
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'm'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (target)
where s is distinct from r and (r.target is not null or s.position > (select k.position from edge k))
order by r.target is not null, target
limit %(most)s

-- relations --
-- Accepted events that name another one and how they relate to it. Relations older than the messages in the log stand as they are.
with entries as (
    select o.room, o.timeline, o.entry, e.event_id, e.sender, history.safe_json(e.json) #> '{content,m.relates_to}' as relation
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = o.kind
    where o.kind in ('s', 'm') and o.verdict = 'a' and o.timeline is not null and position('"m.relates_to":' in e.json) > 0
      and (%(room)s::bigint is null or o.room = %(room)s)
),
named as (
    select (n.relation ->> 'event_id') collate "C" as target, (n.relation ->> 'rel_type') collate "C" as rel_type,
           n.timeline, n.entry, n.room, n.event_id, n.sender
    from entries n
    where json_typeof(n.relation) = 'object'
      and json_typeof(n.relation -> 'event_id') = 'string' and json_typeof(n.relation -> 'rel_type') = 'string'
),
rebuilt as (
    -- At most 255 characters each; in the safe form one that is escaped counts twice.
    select n.target, n.rel_type, n.timeline, n.entry, n.room, n.event_id, n.sender
    from named n
    where n.rel_type <> '' and length(replace(n.target, U&'\+10FFFF', '')) <= 255
      and length(replace(n.rel_type, U&'\+10FFFF', '')) <= 255
),
stored as (
    select l.target, l.rel_type, l.timeline, l.entry, l.room, l.event_id, l.sender
    from roomserver.relations l
    where %(room)s::bigint is null or l.room = %(room)s
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'm'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (target, rel_type, timeline, event_id)
where s is distinct from r and (r.target is not null or s.timeline > (select k.position from edge k))
order by r.target is not null, target, rel_type, timeline, event_id
limit %(most)s

-- early_redactions --
-- Redactions of events that were not known when they came. Those older than the messages in the log stand as they are.
with entries as (
    select replace(history.safe_json(o.annotation) ->> 'awaits', U&'\+10FFFF1', U&'\+10FFFF') collate "C" as target,
           e.event_id as redaction, o.entry, o.room, o.position
    from eventlog.outputs o
    join eventlog.events e on e.id = o.entry and e.kind = o.kind
    where o.kind in ('s', 'm') and o.verdict = 'a' and position('"awaits":' in o.annotation) > 0
      and (%(room)s::bigint is null or o.room = %(room)s)
),
rebuilt as (select n.target, n.redaction, n.entry, n.room, n.position from entries n where n.target is not null),
stored as (
    select d.target, d.redaction, d.entry, d.room, d.position
    from roomserver.early_redactions d
    where %(room)s::bigint is null or d.room = %(room)s
),
edge as (
    select coalesce(max(g.position), 0) as position from eventlog.edges g where g.kind = 'm'
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (target, redaction)
where s is distinct from r and (r.target is not null or s.position > (select k.position from edge k))
order by r.target is not null, target, redaction
limit %(most)s

-- threads --
-- The first reply of each thread, of the relations that are known.
with rebuilt as (
    select distinct on (l.room, l.target) l.room, l.target as root, l.timeline as begun, l.entry, l.event_id
    from roomserver.relations l
    where l.rel_type = 'm.thread' and (%(room)s::bigint is null or l.room = %(room)s)
    order by l.room, l.target, l.timeline
),
stored as (
    select t.room, t.root, t.begun, t.entry, t.event_id
    from roomserver.threads t
    where %(room)s::bigint is null or t.room = %(room)s
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (room, root)
where s is distinct from r
order by r.room is not null, room, root
limit %(most)s

-- activity_users --
-- What each user did by day, up to where it is counted. Where the log has not all messages any more, counts stand as they are.
with entries as (
    select o.room, e.sender, (eventlog.entry_time(o.entry) at time zone 'utc')::date as day, o.kind = 's' as change,
           e.type = 'm.reaction' as reaction, e.type in ('m.room.message', 'm.room.encrypted', 'm.sticker') as message,
           position('"rel_type":"m.replace"' in e.json) > 0 as edit
    from eventlog.positions a
    join eventlog.outputs o on o.shard = a.shard and o.position <= a.position
    join eventlog.events e on e.id = o.entry and e.kind = o.kind
    where a.component = 'activity' and o.kind in ('s', 'm') and o.verdict = 'a' and (%(room)s::bigint is null or o.room = %(room)s)
),
edge as (
    select (eventlog.entry_time(max(g.entry)) at time zone 'utc')::date as day from eventlog.edges g where g.kind = 'm'
),
rebuilt as (
    select n.sender, n.day, n.room,
           count(*) filter (where not n.change and n.message and not n.edit)::integer as messages,
           count(*) filter (where not n.change and n.message and n.edit)::integer as edits,
           count(*) filter (where not n.change and n.reaction)::integer as reactions,
           count(*) filter (where n.change)::integer as changes
    from entries n
    where n.change or n.message or n.reaction
    group by n.sender, n.day, n.room
),
stored as (
    select u.sender, u.day, u.room, u.messages, u.edits, u.reactions, u.changes
    from activity.users u
    where %(room)s::bigint is null or u.room = %(room)s
),
-- Where something was purged or erased the counts are all that says how much there was; where content was scrubbed, an edit is not
-- told from a message.
purged as (
    select n.nid as room, null::text as sender
    from eventlog.erasures a
    join roomserver.rooms n on n.room_id = a.subject
    where a.action in ('history', 'policy')
    union all
    select null, a.subject from eventlog.erasures a where a.action = 'user'
),
scrubbed as (select distinct d.room from roomserver.redactions d where d.scrubbed)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (sender, day, room)
where s is distinct from r and coalesce(day > (select k.day from edge k), true)
  and not coalesce(
      (exists (select from purged k where k.room = s.room or k.sender = s.sender)
       or (s.room in (select k.room from scrubbed k)
           and s.reactions = r.reactions and s.messages + s.edits = r.messages + r.edits))
      and s.changes = coalesce(r.changes, 0) and s.reactions >= coalesce(r.reactions, 0) and s.edits >= coalesce(r.edits, 0)
      and s.messages + s.edits >= coalesce(r.messages + r.edits, 0), false)
order by r.sender is not null, sender, day, room
limit %(most)s

-- activity_rooms --
-- What happened in each room by day: the sum over its users.
with rebuilt as (
    select u.room, u.day, sum(u.messages)::integer as messages, sum(u.edits)::integer as edits, sum(u.reactions)::integer as reactions,
           sum(u.changes)::integer as changes, count(*)::integer as senders
    from activity.users u
    where %(room)s::bigint is null or u.room = %(room)s
    group by u.room, u.day
),
stored as (
    select a.room, a.day, a.messages, a.edits, a.reactions, a.changes, a.senders
    from activity.rooms a
    where %(room)s::bigint is null or a.room = %(room)s
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (room, day)
where s is distinct from r
order by r.room is not null, room, day
limit %(most)s

-- activity_days --
-- What happened on the server by day: the sum over users and rooms.
with rebuilt as (
    select u.day, sum(u.messages)::bigint as messages, sum(u.edits)::bigint as edits, sum(u.reactions)::bigint as reactions,
           sum(u.changes)::bigint as changes, count(distinct u.sender)::integer as senders, count(distinct u.room)::integer as rooms
    from activity.users u
    where %(room)s::bigint is null or u.room = %(room)s
    group by u.day
),
stored as (
    select d.day, d.messages, d.edits, d.reactions, d.changes, d.senders, d.rooms from activity.days d
)
select row_to_json(s)::text, row_to_json(r)::text
from stored s
full join rebuilt r using (day)
where s is distinct from r
order by r.day is not null, day
limit %(most)s
