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
