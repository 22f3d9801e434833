-- presences --
-- Of those who share a room with a user: whose presence changed between positions by shard, or all, with or without those who are offline.
select p.user_id,
       case when p.until < %(ms)s then 'offline' else p.presence end,
       p.status_msg, p.active_at, p.shard, p.changed
from roomserver.presence p
where case when %(since)s::bigint[] is null then %(offline)s or (p.presence <> 'offline' and p.until >= %(ms)s)
           else p.changed > (%(since)s::bigint[])[p.shard + 1] end
  and p.changed <= (%(now)s::bigint[])[p.shard + 1]
  and exists (
      select from roomserver.memberships m
      join roomserver.memberships o on o.room = m.room and o.user_id = p.user_id and o.membership = 'j'
      where m.user_id = %(user_id)s and m.membership = 'j'
  )
order by p.active_at desc
limit %(most)s
