-- look --
-- How far every shard is, its epoch, and what was decided since; only what was appended lately, so that old partitions rest.
select p.shard, p.position, p.epoch, o.position, o.entry, o.verdict, o.reason
from eventlog.positions p
left join unnest(%(shards)s::smallint[], %(after)s::bigint[]) as a (shard, position) on a.shard = p.shard
left join lateral (
    select o.position, o.entry, o.verdict, o.reason
    from eventlog.outputs o
    where o.shard = p.shard and o.position > a.position and o.entry >= %(since)s
    order by o.position
    limit %(most)s
) o on true
where p.component = 'roomserver'
order by p.shard, o.position

-- verdict_of --
-- The verdict on one entry, if there is one.
select position, entry, verdict, reason from eventlog.outputs where entry = %(entry)s

-- room_servers --
-- Which sessions are those of room servers: nobody else's notices count.
select a.pid
from pg_catalog.pg_stat_activity a
join pg_catalog.pg_roles r on r.rolname = 'walden_roomserver'
where a.pid = any(%(pids)s) and pg_catalog.pg_has_role(a.usesysid, r.oid, 'member')
