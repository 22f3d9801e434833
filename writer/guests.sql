-- guests_in_rooms --
-- Guests of this server by the rooms they are in, with the event that says whether the room lets guests in.
select n.room_id, array_agg(m.user_id order by m.user_id), max(e.json) filter (where x.target is null)
from writer.accounts a
join roomserver.memberships m on m.user_id = a.user_id and m.membership = 'j'
join roomserver.rooms n on n.nid = m.room
left join roomserver.state s on s.room = m.room and s.line = 0 and s.type = 'm.room.guest_access' and s.state_key = ''
     and s.valid_to = 9223372036854775807
left join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = e.event_id
where a.guest and a.deactivated_at is null and (%(room_id)s::text is null or n.room_id = %(room_id)s)
group by n.room_id
limit %(most)s
