-- carried_state --
-- What of a room's state its successor takes over, each with whether it is redacted: some keys, children of a space, bans.
(select s.type, s.state_key, e.json, x.target is not null
 from roomserver.rooms n
 join roomserver.state s on s.room = n.nid and s.line = 0 and s.valid_to = 9223372036854775807 and s.state_key = ''
     and s.type = any (%(types)s::text[])
 join eventlog.events e on e.id = s.entry and e.kind = 's'
 left join roomserver.redactions x on x.target = e.event_id
 where n.room_id = %(room_id)s)
union all
(select s.type, s.state_key, e.json, x.target is not null
 from roomserver.rooms n
 join roomserver.state s on s.room = n.nid and s.line = 0 and s.valid_to = 9223372036854775807 and s.type = 'm.space.child'
 join eventlog.events e on e.id = s.entry and e.kind = 's'
 left join roomserver.redactions x on x.target = e.event_id
 where n.room_id = %(room_id)s
 limit %(most_children)s)
union all
(select s.type, s.state_key, e.json, x.target is not null
 from roomserver.rooms n
 join roomserver.memberships m on m.room = n.nid and m.membership = 'b'
 join roomserver.state s on s.room = n.nid and s.line = 0 and s.valid_to = 9223372036854775807 and s.type = 'm.room.member'
     and s.state_key = m.user_id
 join eventlog.events e on e.id = s.entry and e.kind = 's'
 left join roomserver.redactions x on x.target = e.event_id
 where n.room_id = %(room_id)s
 limit %(most_bans)s)

-- aliases --
-- The aliases of a room with who made them.
select alias, creator from roomserver.aliases where room_id = %(room_id)s order by alias limit %(most)s

-- published --
-- Whether a room is in the directory.
select exists (select from roomserver.directory where room_id = %(room_id)s)
