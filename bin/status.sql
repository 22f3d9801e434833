-- positions --
-- How far each consumer with a stored position is.
select component, shard, position, pid, epoch, extract(epoch from now() - moved_at)::float8 as seconds
from eventlog.positions order by component, shard

-- waiting --
-- Entries of a shard without a verdict (counted to a bound), the age of the oldest, and how many of them were deferred.
select count(*) filter (where d.entry is null) as waiting,
       coalesce(extract(epoch from now() - eventlog.entry_time(min(e.id) filter (where d.entry is null))), 0)::float8 as seconds,
       count(d.entry) as deferred
from (
    select e.id from eventlog.events e
    where e.shard = %(shard)s
      and e.id >= eventlog.id_at((select moved_at from eventlog.positions where component = 'roomserver' and shard = %(shard)s)
                                 - %(margin)s::interval)
      and not exists (select from eventlog.outputs o where o.entry = e.id)
    order by e.id limit 10000
) e left join roomserver.deferred d on d.entry = e.id

-- projections --
-- How far projections are over all shards, by how many outputs behind the room server, and the age of the oldest of these.
select p.component, max(p.pid) as pid, sum(p.position)::bigint as position, sum(r.position - p.position)::bigint as behind,
       coalesce(max(extract(epoch from now() - eventlog.entry_time(o.entry))), 0)::float8 as seconds
from eventlog.positions p
join eventlog.positions r on r.component = 'roomserver' and r.shard = p.shard
left join lateral (
    select n.entry from eventlog.outputs n where n.shard = p.shard and n.position = p.position + 1 limit 1
) o on true
where p.component = any(%(names)s)
group by p.component

-- next_output --
-- The age of the first output of a shard after a position.
select extract(epoch from now() - eventlog.entry_time(entry))::float8
from eventlog.outputs where shard = %(shard)s and position = %(position)s

-- sessions --
-- Names of this database's sessions, which say how far the processes are.
select distinct application_name from pg_catalog.pg_stat_activity
where datname = current_database() and application_name like 'walden %% at %%'

-- quarantine --
-- Entries that failed three times and that nobody has dealt with, oldest first.
select entry, room_id, event_id, error, attempts, quarantined_at
from roomserver.quarantine where resolved_at is null order by entry limit 1000

-- wal_end --
-- The end of the WAL.
select pg_current_wal_lsn()::text
