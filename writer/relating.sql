-- related_to --
-- The type and content of an accepted event of a room, and the annotations by a user of it that are not redacted.
select e.json, (
    select json_agg(json_build_array(a.type, a.device_id, a.txn_id, a.json))
    from (
        select n.type, n.device_id, n.txn_id, n.json
        from roomserver.relations l
        join eventlog.events n on n.id = l.entry and n.kind in ('s', 'm')
        where l.target = e.event_id and l.rel_type = 'm.annotation' and l.sender = %(user_id)s
          and not exists (select from roomserver.redactions x where x.target = l.event_id)
        order by l.timeline desc
        limit 200
    ) a
)::text
from eventlog.event_keys i
join eventlog.events e on e.id = i.id and e.kind in ('s', 'm')
where i.key = eventlog.event_key(%(event_id)s) and e.room_id = %(room_id)s
