-- has_pushers --
-- Whether anybody wants to be told of notifications.
select exists (select from writer.pushers)

-- enqueue --
-- Notes what recent events are to tell to the pushers of those whom they notify; behind a push that has to wait, all wait.
with events as materialized (
    select e.room, e.timeline, e.entry
    from unnest(%(rooms)s::bigint[], %(timelines)s::bigint[], %(entries)s::bigint[]) as e (room, timeline, entry)
    where e.entry > eventlog.id_at(now() - interval '1 hour') and exists (select from writer.pushers)
)
insert into notifications.pushes (pusher, entry, room, actions, due_at)
select w.pusher, w.entry, w.room, w.actions, greatest(now(), before.due_at)
from (
    select p.id as pusher, n.entry, n.room, n.actions
    from events e
    join notifications.notices n on n.room = e.room and n.timeline = e.timeline
    join roomserver.memberships m on m.room = n.room and m.membership = 'j' and m.joined_at < n.timeline
    join writer.pushers p on p.user_id = m.user_id
    where n.sender <> p.user_id
      and not exists (
          select from notifications.exceptions x where x.user_id = p.user_id and x.room = n.room and x.timeline = n.timeline
      )
    union all
    select p.id, x.entry, x.room, x.actions
    from events e
    join notifications.exceptions x on x.room = e.room and x.timeline = e.timeline and x.notify
    join writer.pushers p on p.user_id = x.user_id
) w
left join lateral (
    select q.due_at from notifications.pushes q where q.pusher = w.pusher and q.entry < w.entry order by q.entry desc limit 1
) before on true
on conflict do nothing

-- lock --
-- Keeps other processes from pushing.
select pg_try_advisory_lock(1466004582)

-- due --
-- The first that is due of each pusher but those that are busy, with the event and what people call its room and sender.
with due as (
    select distinct on (q.pusher) q.pusher, q.entry, q.room, q.actions, q.attempts
    from notifications.pushes q
    where q.sent_at is null and q.due_at <= now() and not q.pusher = any(%(busy)s::bigint[])
    order by q.pusher, q.entry
    limit %(most)s
)
select d.pusher, d.entry, d.attempts, d.actions, d.room, p.user_id, p.app_id, p.pushkey, extract(epoch from p.set_at)::bigint, p.data,
       r.room_id, e.event_id, e.json, x.target is not null, n.json, c.json, m.json
from due d
join writer.pushers p on p.id = d.pusher
left join roomserver.rooms r on r.nid = d.room
left join eventlog.events e on e.id = d.entry and e.kind in ('s', 'm')
left join roomserver.redactions x on x.target = e.event_id
left join roomserver.state ns on ns.room = d.room and ns.line = 0 and ns.type = 'm.room.name' and ns.state_key = ''
    and ns.valid_to = 9223372036854775807
left join eventlog.events n on n.id = ns.entry and n.kind = 's'
left join roomserver.state cs on cs.room = d.room and cs.line = 0 and cs.type = 'm.room.canonical_alias' and cs.state_key = ''
    and cs.valid_to = 9223372036854775807
left join eventlog.events c on c.id = cs.entry and c.kind = 's'
left join roomserver.state ms on ms.room = d.room and ms.line = 0 and ms.type = 'm.room.member' and ms.state_key = e.sender
    and ms.valid_to = 9223372036854775807
left join eventlog.events m on m.id = ms.entry and m.kind = 's'

-- sent --
-- Notes that a gateway took a push, or that there is nothing to tell any more.
update notifications.pushes set sent_at = now() where pusher = %(pusher)s and entry = %(entry)s

-- failed --
-- Lets a pusher rest after a failure, with all that waits for it.
update notifications.pushes
set due_at = now() + make_interval(secs => %(seconds)s), attempts = attempts + (entry = %(entry)s)::int
where pusher = %(pusher)s and sent_at is null

-- rejected --
-- Removes pushers whose push keys their gateway does not know any more.
select notifications.reject_v1(%(app_id)s, %(pushkeys)s)

-- sweep --
-- Forgets what was sent over an hour ago, what could not be sent within a day, and of what waits for one pusher all but the latest.
delete from notifications.pushes
where (sent_at is not null and entry < eventlog.id_at(now() - interval '1 hour')) or entry < eventlog.id_at(now() - interval '1 day')
   or (pusher, entry) in (
       select w.pusher, w.entry
       from (select q.pusher, q.entry, row_number() over (partition by q.pusher order by q.entry desc) as place
             from notifications.pushes q where q.sent_at is null) w
       where w.place > %(most)s
   )
