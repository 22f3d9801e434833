-- unjudged --
-- Entries of a shard that have no verdict, counted as the room server looks for them.
select count(*) from eventlog.events e
where e.shard = %(shard)s
  and e.id >= eventlog.id_at((select moved_at from eventlog.positions where component = 'roomserver' and shard = %(shard)s)
                             - interval '1 hour')
  and not exists (select from eventlog.outputs o where o.entry = e.id)
  and not exists (select from roomserver.deferred d where d.entry = e.id)

-- consumers --
-- Consumers that keep a position in the database, and how far each is behind the room server.
select c.component, c.shard, c.position, r.position - c.position as behind
from eventlog.positions c
join eventlog.positions r on r.component = 'roomserver' and r.shard = c.shard
where c.component <> 'roomserver'
order by c.component, c.shard

-- count_activity --
-- Counts daily activity on, some thousand outputs at a time; how many were counted.
select activity.fold_v1()

-- owners --
-- Process ids of the room servers that have a shard, as they wrote them down.
select pid from eventlog.positions where component = 'roomserver' and shard = %(shard)s

-- present --
-- The current epoch, and where every shard of the room server is.
select (select epoch from eventlog.epochs order by ordinal desc limit 1), shard, position
from eventlog.positions where component = 'roomserver' order by shard

-- ready --
-- Says that all that had to follow the beginning of an epoch was done.
update eventlog.epochs set ready_at = now() where ready_at is null
