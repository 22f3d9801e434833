-- heads --
-- How far every shard of the room server is, and the epoch it is in.
select shard, position, epoch from eventlog.positions where component = 'roomserver' order by shard

-- verdicts --
-- What was decided after a position, in order; only what was appended since a moment, so that old partitions are not looked at.
select position, entry, verdict, reason
from eventlog.outputs
where shard = %(shard)s and position > %(after)s and entry >= %(since)s
order by position
limit %(most)s

-- verdict_of --
-- The verdict on one entry, if there is one.
select position, entry, verdict, reason from eventlog.outputs where entry = %(entry)s
