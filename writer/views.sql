-- views --
-- Rooms as they stand, with the state events asked for.
select room_id, nid, room_version, extremities, depth, state_position, judged_seq, generation, joined, invited,
       tip, tip_depth, tip_seq, tip_state_seq, tip_generation, state
from roomserver.view_v1(%(asked)s::json)

-- events --
-- Events by id.
select e.event_id, e.json
from unnest(%(event_ids)s::text[]) as w (event_id)
join eventlog.event_keys i on i.key = eventlog.event_key(w.event_id)
join eventlog.events e on e.id = i.id

-- redacted --
-- Which of some events are redacted.
select x.target from roomserver.redactions x where x.target = any(%(event_ids)s)
