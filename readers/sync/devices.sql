-- to_device --
-- Messages to a device between positions by shard, in order of both; and one row, marked, if earlier ones are still there.
(select t.shard, t.position, t.sender, t.type, t.content, false as arrived
 from roomserver.to_device t
 where t.user_id = %(user_id)s and t.device_id = %(device_id)s
   and t.position > (%(since)s::bigint[])[t.shard + 1] and t.position <= (%(now)s::bigint[])[t.shard + 1]
 order by t.shard, t.position
 limit %(most)s)
union all
(select t.shard, t.position, t.sender, t.type, t.content, true
 from roomserver.to_device t
 where t.user_id = %(user_id)s and t.device_id = %(device_id)s and t.position <= (%(since)s::bigint[])[t.shard + 1]
 limit 1)

-- stocks --
-- How many one-time keys of each algorithm a user's devices have left, and which fallback keys are unused.
select k.device_id, k.algorithm, count(*), false
from writer.one_time_keys k
where k.user_id = %(user_id)s and k.claimed_at is null
  and k.epoch = (select e.epoch from eventlog.epochs e order by e.ordinal desc limit 1)
group by k.device_id, k.algorithm
union all
select f.device_id, f.algorithm, 1, true
from writer.fallback_keys f
where f.user_id = %(user_id)s and not f.used
  and f.epoch = (select e.epoch from eventlog.epochs e order by e.ordinal desc limit 1)
order by 1, 2

-- list_changes --
-- Since positions by shard: whose devices changed, or who joined, of those in a user's rooms; and, marked, who left these.
with mine as (
    select m.room, n.shard
    from roomserver.memberships m
    join roomserver.rooms n on n.nid = m.room
    where m.user_id = %(user_id)s and m.membership = 'j'
),
members as (
    select s.state_key as user_id, s.membership
    from mine r
    join roomserver.state s on s.room = r.room and s.line = 0 and s.type = 'm.room.member'
        and s.valid_from > (%(since)s::bigint[])[r.shard + 1]
    where s.membership is not null
)
select d.user_id, false
from roomserver.device_lists d
where d.position > (%(since)s::bigint[])[d.shard + 1]
  and (d.user_id = %(user_id)s or exists (
      select from mine r
      join roomserver.memberships o on o.room = r.room and o.user_id = d.user_id and o.membership = 'j'))
union
select k.key_id, false
from roomserver.user_keys k
where k.user_id = %(user_id)s and k.usage = 'signed' and k.position > (%(since)s::bigint[])[k.shard + 1]
union
select c.user_id, c.membership <> 'j' from members c where c.user_id <> %(user_id)s and c.membership <> 'i' and c.membership <> 'k'

-- companions --
-- Who is in rooms that a user has joined; and, marked, who shares none with the user any more, of some and of who was in rooms that
-- the user has left since positions, when the user did or after these.
select m.user_id, false
from roomserver.memberships m
where m.room = any(%(joined)s) and m.membership = 'j' and m.user_id <> %(user_id)s
union
select a.user_id, true
from (
    select p.user_id collate "C" as user_id from unnest(%(parted)s::text[]) as p (user_id)
    union
    select m.user_id
    from unnest(%(left)s::bigint[], %(left_at)s::bigint[]) as l (room, at)
    join roomserver.memberships m on m.room = l.room and m.membership = 'j' and m.joined_at < l.at
    union
    select s.state_key
    from unnest(%(left)s::bigint[], %(left_at)s::bigint[], %(left_since)s::bigint[]) as l (room, at, since)
    join roomserver.state s on s.room = l.room and s.valid_to > l.since and s.valid_to < 9223372036854775807
        and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j' and s.valid_from < l.at
) a
where a.user_id <> %(user_id)s and not exists (
    select from roomserver.memberships o
    join roomserver.memberships u on u.room = o.room and u.user_id = %(user_id)s and u.membership = 'j'
    where o.user_id = a.user_id and o.membership = 'j')

-- all_companions --
-- Everybody who shares a room with a user, and the user.
select distinct o.user_id
from roomserver.memberships m
join roomserver.memberships o on o.room = m.room and o.membership = 'j'
where m.user_id = %(user_id)s and m.membership = 'j'
