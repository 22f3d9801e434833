-- views --
-- Rooms as they stand, with the state events asked for.
select room_id, nid, room_version, extremities, depth, state_position, judged_seq, generation, joined, invited,
       tip, tip_depth, tip_seq, tip_state_seq, tip_generation, state
from roomserver.view_v1(%(asked)s::json)

-- events --
-- Events by id.
select i.event_id, e.json
from eventlog.event_ids i
join eventlog.events e on e.id = i.id
where i.event_id = any (%(event_ids)s)
