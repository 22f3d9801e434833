-- event --
-- The room, type, state key and sender of an accepted event of that id.
select e.room_id, e.type, e.state_key, e.sender
from eventlog.event_ids i
join eventlog.events e on e.id = i.id and e.kind in ('s', 'm')
where i.event_id = %(event_id)s
  and exists (select from eventlog.outputs o where o.entry = i.id and o.kind in ('s', 'm') and o.verdict = 'a')
