-- visibility --
-- Whether a room that is known is published.
select d.room_id is not null
from roomserver.rooms n
left join roomserver.directory d on d.room_id = n.room_id
where n.room_id = %(room_id)s

-- published --
-- A page of published rooms, the largest first, after or before a place in that order, with the state that describes them.
select n.room_id, n.room_version, h.joined,
       (select json_agg(json_build_array(s.type, e.json::json, x.target is not null))
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = e.event_id
        where s.room = n.nid and s.line = 0 and s.valid_to = 9223372036854775807 and s.state_key = ''
          and s.type = any (%(types)s::text[]))::text
from roomserver.directory d
join roomserver.rooms n on n.room_id = d.room_id
join roomserver.heads h on h.room = n.nid
where (h.joined, n.room_id) < (%(joined)s::integer, %(room_id)s::text)
order by h.joined desc, n.room_id desc
limit %(most)s

-- published_before --
-- The same in the other direction.
select n.room_id, n.room_version, h.joined,
       (select json_agg(json_build_array(s.type, e.json::json, x.target is not null))
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = e.event_id
        where s.room = n.nid and s.line = 0 and s.valid_to = 9223372036854775807 and s.state_key = ''
          and s.type = any (%(types)s::text[]))::text
from roomserver.directory d
join roomserver.rooms n on n.room_id = d.room_id
join roomserver.heads h on h.room = n.nid
where (h.joined, n.room_id) > (%(joined)s::integer, %(room_id)s::text)
order by h.joined, n.room_id
limit %(most)s

-- number --
-- How many rooms are published, up to a number.
select count(*) from (select from roomserver.directory limit 100000) as d
