-- events --
-- Events of timelines by entry.
select e.id, o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id, e.json,
       x.redaction
from unnest(%(entries)s::bigint[]) as i (id)
join eventlog.events e on e.id = i.id and e.kind in ('s', 'm')
join eventlog.outputs o on o.entry = e.id and o.kind = e.kind and o.kind in ('s', 'm')
left join roomserver.redactions x on x.target = e.event_id
where o.verdict = 'a' and o.timeline is not null

-- accesses --
-- What decides what a user may read of rooms, as the rooms reader asks it of one.
select r.room_id, r.nid, r.room_version, r.shard, m.forgotten, a.content, t.of_member, t.line, t.valid_from, t.valid_to, t.value
from roomserver.rooms r
left join roomserver.memberships m on m.room = r.nid and m.user_id = %(user_id)s
left join roomserver.account_data a on a.user_id = %(user_id)s and a.room_id = '' and a.type = 'm.ignored_user_list'
left join lateral (
    (select true as of_member, s.line, s.valid_from, s.valid_to, s.membership::text as value
     from roomserver.state s
     where s.room = r.nid and s.type = 'm.room.member' and s.state_key = %(user_id)s
     order by s.line, s.valid_from desc
     limit 5000)
    union all
    (select false, s.line, s.valid_from, s.valid_to, e.json
     from roomserver.state s
     left join eventlog.events e on e.id = s.entry and e.kind = 's'
     where s.room = r.nid and s.type = 'm.room.history_visibility' and s.state_key = ''
     order by s.line, s.valid_from desc
     limit 5000)
) t on true
where r.room_id = any(%(room_ids)s)
