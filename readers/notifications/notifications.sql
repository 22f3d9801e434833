-- ruled --
-- Who has said anything about what is to notify them.
select distinct user_id from roomserver.account_data where room_id = '' and type = any(%(types)s)

-- rules --
-- What users said about what is to notify them.
select user_id, type, content from roomserver.account_data where room_id = '' and type = any(%(types)s) and user_id = any(%(users)s)

-- bases --
-- What rules ask of rooms, each after a position of its main line: how many are joined, and who may notify all.
select r.i::int, n.room_version,
       case when h.state_position <= r.at then h.joined
            else (select count(*) from roomserver.state j
                  where j.room = r.room and j.line = 0 and j.type = 'm.room.member' and j.membership = 'j'
                    and j.valid_from <= r.at and j.valid_to > r.at) end::bigint,
       s.type, e.event_id, e.json
from unnest(%(rooms)s::bigint[], %(at)s::bigint[]) with ordinality as r (room, at, i)
join roomserver.rooms n on n.nid = r.room
join roomserver.heads h on h.room = r.room
join roomserver.state s on s.room = r.room and s.line = 0 and s.type in ('m.room.create', 'm.room.power_levels') and s.state_key = ''
    and s.valid_from <= r.at and s.valid_to > r.at
join eventlog.events e on e.id = s.entry and e.kind = 's'

-- ruled_members --
-- Those in rooms, each after a position of its main line, who have said what is to notify them, with their membership events.
select r.room, m.user_id, e.json
from unnest(%(rooms)s::bigint[], %(at)s::bigint[]) as r (room, at)
join roomserver.memberships m on m.room = r.room
join roomserver.state s on s.room = r.room and s.line = 0 and s.type = 'm.room.member' and s.state_key = m.user_id
    and s.membership = 'j' and s.valid_from <= r.at and s.valid_to > r.at
join eventlog.events e on e.id = s.entry and e.kind = 's'
where exists (
    select from roomserver.account_data a where a.user_id = m.user_id and a.room_id = '' and a.type = any(%(types)s)
)

-- present --
-- Which of some users are in rooms, or invited, each after a position of the main line.
select x.i::int
from unnest(%(rooms)s::bigint[], %(at)s::bigint[], %(users)s::text[]) with ordinality as x (room, at, user_id, i)
join roomserver.state s on s.room = x.room and s.line = 0 and s.type = 'm.room.member' and s.state_key = x.user_id
    and s.membership in ('j', 'i') and s.valid_from <= x.at and s.valid_to > x.at

-- parents --
-- Events by event id, as the log has them.
select e.event_id, e.json
from unnest(%(event_ids)s::text[]) as w (event_id)
join eventlog.event_keys k on k.key = eventlog.event_key(w.event_id)
join eventlog.events e on e.id = k.id and e.kind in ('s', 'm')

-- notice --
-- Notes events that notify all.
insert into notifications.notices (room, timeline, entry, event_id, sender, thread, highlight, actions)
select x.room, x.timeline, x.entry, x.event_id, x.sender, x.thread, x.highlight, x.actions
from jsonb_to_recordset(%(notices)s::jsonb)
    as x (room bigint, timeline bigint, entry bigint, event_id text, sender text, thread text, highlight boolean, actions text)
on conflict do nothing

-- except --
-- Notes what events do to some users otherwise than to all.
insert into notifications.exceptions (user_id, room, timeline, entry, event_id, thread, notify, highlight, actions)
select x.user_id, x.room, x.timeline, x.entry, x.event_id, x.thread, x.notify, x.highlight, x.actions
from jsonb_to_recordset(%(exceptions)s::jsonb)
    as x (user_id text, room bigint, timeline bigint, entry bigint, event_id text, thread text, notify boolean, highlight boolean,
          actions text)
on conflict do nothing

-- take_back --
-- A redacted event notifies nobody.
with noticed as (
    delete from notifications.notices where event_id = any(%(event_ids)s)
)
delete from notifications.exceptions where event_id = any(%(event_ids)s)

-- trim --
-- Forgets what stands before the newest events of rooms.
with edges as materialized (
    select r.room, o.timeline
    from unnest(%(rooms)s::bigint[]) as r (room)
    cross join lateral (
        select t.timeline
        from eventlog.outputs t
        where t.room = r.room and t.kind in ('s', 'm') and t.verdict = 'a' and t.timeline is not null
        order by t.timeline desc
        offset %(kept)s
        limit 1
    ) o
),
noticed as (
    delete from notifications.notices n using edges e where n.room = e.room and n.timeline <= e.timeline
)
delete from notifications.exceptions x using edges e where x.room = e.room and x.timeline <= e.timeline

-- tidy --
-- Forgets events that have left the log.
with noticed as (
    delete from notifications.notices n
    where (%(all)s or n.entry < (select max(g.entry) from eventlog.edges g where g.kind = 'm'))
      and not exists (select from eventlog.events e where e.id = n.entry and e.kind in ('s', 'm'))
)
delete from notifications.exceptions x
where (%(all)s or x.entry < (select max(g.entry) from eventlog.edges g where g.kind = 'm'))
  and not exists (select from eventlog.events e where e.id = x.entry and e.kind in ('s', 'm'))

-- clear --
-- Forgets all.
truncate notifications.notices, notifications.exceptions

-- counts --
-- How many events a user has not read, by room and thread, and how many of them are highlights.
with stays as materialized (
    select m.room, m.joined_at
    from roomserver.memberships m
    where m.user_id = %(user_id)s and m.membership = 'j' and (%(rooms)s::bigint[] is null or m.room = any(%(rooms)s))
),
reading as materialized (
    select c.room, c.thread_id, max(coalesce(c.event_position, 0)) as timeline
    from roomserver.receipts c
    join stays s on s.room = c.room
    where c.user_id = %(user_id)s and c.receipt_type in ('m.read', 'm.read.private')
    group by c.room, c.thread_id
),
mine as materialized (
    select s.room, greatest(s.joined_at, r.timeline) as read
    from stays s
    left join reading r on r.room = s.room and r.thread_id = ''
),
unread as (
    select m.room, n.timeline, n.thread, n.highlight
    from mine m
    join notifications.notices n on n.room = m.room and n.timeline > m.read
    where n.sender <> %(user_id)s
      and not exists (
          select from notifications.exceptions x
          where x.user_id = %(user_id)s and x.room = n.room and x.timeline = n.timeline
      )
    union all
    select m.room, x.timeline, x.thread, x.highlight
    from mine m
    join notifications.exceptions x on x.user_id = %(user_id)s and x.room = m.room and x.timeline > m.read
    where x.notify and x.thread <> ''
)
select u.room, u.thread, count(*), count(*) filter (where u.highlight)
from unread u
left join reading r on r.room = u.room and r.thread_id = u.thread
where r.timeline is null or u.timeline > r.timeline
group by u.room, u.thread

-- page --
-- The latest events that notified a user before an entry, and whether they have read them.
with stays as materialized (
    select m.room, case when m.membership = 'j' then m.joined_at end as joined_at
    from roomserver.memberships m
    where m.user_id = %(user_id)s and m.membership in ('j', 'i')
),
found as (
    select s.room, n.timeline, n.entry, n.thread, n.actions
    from stays s
    cross join lateral (
        select i.timeline, i.entry, i.thread, i.actions
        from notifications.notices i
        where i.room = s.room and i.timeline > s.joined_at and i.sender <> %(user_id)s and i.entry < %(before)s
          and (i.highlight or not %(highlights)s)
          and not exists (
              select from notifications.exceptions x
              where x.user_id = %(user_id)s and x.room = i.room and x.timeline = i.timeline
          )
        order by i.timeline desc
        limit %(most)s
    ) n
    union all
    select s.room, x.timeline, x.entry, x.thread, x.actions
    from notifications.exceptions x
    join stays s on s.room = x.room
    where x.user_id = %(user_id)s and x.notify and x.entry < %(before)s and (x.highlight or not %(highlights)s)
      and (x.thread = '' or x.timeline > s.joined_at)
)
select f.entry, r.room_id, f.thread, f.actions,
       exists (
           select from roomserver.receipts c
           where c.room = f.room and c.user_id = %(user_id)s and c.receipt_type in ('m.read', 'm.read.private')
             and c.thread_id in ('', f.thread) and c.event_position >= f.timeline
       )
from found f
join roomserver.rooms r on r.nid = f.room
order by f.entry desc
limit %(most)s
