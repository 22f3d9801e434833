-- event --
-- The room, type, state key and sender of an accepted event of that id.
select e.room_id, e.type, e.state_key, e.sender
from eventlog.event_keys i
join eventlog.events e on e.id = i.id and e.kind in ('s', 'm')
where i.key = eventlog.event_key(%(event_id)s)
  and exists (select from eventlog.outputs o where o.entry = i.id and o.kind in ('s', 'm') and o.verdict = 'a')

-- document --
-- An event of a room as the log has it.
select e.json
from eventlog.event_keys i
join eventlog.events e on e.id = i.id and e.kind in ('s', 'm')
where i.key = eventlog.event_key(%(event_id)s) and e.room_id = %(room_id)s
