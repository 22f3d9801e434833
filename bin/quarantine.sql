-- entries --
-- Entries in quarantine that nobody has dealt with, oldest first, with what was sent.
select q.entry, q.room_id, q.event_id, q.error, q.attempts, q.quarantined_at, q.position,
       e.kind, e.local, e.type, e.sender, e.device_id, e.txn_id, e.json
from roomserver.quarantine q
left join eventlog.events e on e.id = q.entry
where q.resolved_at is null and (%(entry)s::bigint is null or q.entry = %(entry)s)
order by q.entry
limit %(most)s

-- hold --
-- One entry, for as long as the transaction lasts; nothing when somebody has dealt with it, or is at it.
select q.entry from roomserver.quarantine q
where q.entry = %(entry)s and q.resolved_at is null
for update skip locked

-- resolve --
-- Notes what a person decided.
update roomserver.quarantine set resolved_at = now(), resolution = %(resolution)s
where entry = %(entry)s and resolved_at is null

-- made_of --
-- The entry that was appended in the place of one in quarantine, with the verdict on it.
select c.entry, o.verdict, o.reason
from eventlog.txns c
left join eventlog.outputs o on o.entry = c.entry
where c.key = decode(%(claim)s, 'hex')

-- hand_over --
-- Gives the transaction id of one entry to another: its sender, asking again, is told of that one.
update eventlog.txns set entry = %(made)s where entry = %(entry)s
