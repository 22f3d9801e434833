-- begin --
-- Lets projections begin before the first output of every shard, unless they have begun.
insert into eventlog.positions (component, shard, position, lsn, epoch)
select c.component, p.shard, 0, '0/0', p.epoch
from eventlog.positions p
cross join unnest(%(components)s::text[]) as c (component)
where p.component = 'roomserver'
on conflict do nothing

-- lock --
-- Keeps others from following for the same projections: true once all are free for this one.
select bool_and(pg_try_advisory_lock(1466004581, hashtext(c.component))) from unnest(%(components)s::text[]) as c (component)

-- take --
-- Says which process follows, and how far each projection is.
update eventlog.positions set pid = %(pid)s where component = any(%(components)s) returning component, shard, position

-- stored --
-- How far projections are.
select component, shard, position from eventlog.positions where component = any(%(components)s)

-- outputs_after --
-- The next outputs of a shard with their entries, in order; positions are dense, and what is seen is committed.
select o.shard, o.position, o.kind::text, o.entry, o.room, o.verdict::text, o.timeline, o.line, o.annotation,
       e.event_id, e.room_id, e.type, e.state_key, e.sender, e.json
from eventlog.outputs o
left join eventlog.events e on e.id = o.entry and e.kind = o.kind
where o.shard = %(shard)s and o.position > %(after)s
order by o.position
limit %(most)s

-- move --
-- Moves a projection's position, if it is still where this process left it.
update eventlog.positions set position = %(upto)s, moved_at = now()
where component = %(component)s and shard = %(shard)s and position = %(after)s

-- reset --
-- Begins a projection again from the first output.
update eventlog.positions set position = 0, moved_at = now() where component = %(component)s

-- progress --
-- How far projections are, and the room server, over all shards.
select p.component, sum(p.position)::bigint, sum(r.position)::bigint
from eventlog.positions p
join eventlog.positions r on r.component = 'roomserver' and r.shard = p.shard
where p.component = any(%(components)s)
group by p.component

-- standing --
-- How far the room server and a projection are, by shard.
select r.shard, r.position, coalesce(p.position, -1)
from eventlog.positions r
left join eventlog.positions p on p.shard = r.shard and p.component = %(component)s
where r.component = 'roomserver'
