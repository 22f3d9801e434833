-- before_join --
-- What joins need to know in one look, each: the user's membership and names, the room's join rules, and its create event if that names a predecessor.
select w.o, m.membership::text,
       (select e.json
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        where s.room = n.nid and s.line = 0 and s.type = 'm.room.join_rules' and s.state_key = ''
          and s.valid_to = 9223372036854775807),
       (select json_object_agg(p.field, p.value::json)
        from roomserver.profiles p
        where p.user_id = w.user_id and p.field in ('displayname', 'avatar_url'))::text,
       (select e.json
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        where s.room = n.nid and s.line = 0 and s.type = 'm.room.create' and s.state_key = ''
          and s.valid_to = 9223372036854775807 and position('"predecessor"' in e.json) > 0)
from unnest(%(user_ids)s::text[], %(room_ids)s::text[]) with ordinality as w (user_id, room_id, o)
join roomserver.rooms n on n.room_id = w.room_id
left join roomserver.memberships m on m.room = n.nid and m.user_id = w.user_id
