-- known --
-- How users are present.
select user_id, presence, active_at, until, by, position from roomserver.presence where user_id = any(%(users)s)

-- lapsed --
-- Users whose presence nobody has renewed in time.
select user_id, position from roomserver.presence
where presence <> 'offline' and until < %(now)s
order by until
limit %(most)s

-- seen_by --
-- How a user is present, if another one may know: who is the same, or shares a room.
select p.presence, p.status_msg, p.active_at, p.until,
       u.user_id = %(asker)s or exists (
           select from roomserver.memberships m
           join roomserver.memberships o on o.room = m.room and o.user_id = u.user_id and o.membership = 'j'
           where m.user_id = %(asker)s and m.membership = 'j'
       )
from (select %(user_id)s::text as user_id) u
left join roomserver.presence p on p.user_id = u.user_id
