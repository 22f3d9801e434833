-- related --
-- Those of some events to which others relate in a way that is told with them.
select w.event_id
from jsonb_array_elements_text(%(events)s::jsonb) as w (event_id)
where exists (
    select from roomserver.relations l
    where l.target = w.event_id and l.rel_type in ('m.thread', 'm.replace', 'm.reference'))

-- bundles --
-- What is told with events about those that relate to them: threads with their latest event, the latest edits, references.
with wanted as materialized (
    select w.room, w.event_id, w.sender, w.type, w.editable
    from unnest(%(rooms)s::bigint[], %(events)s::text[], %(senders)s::text[], %(types)s::text[], %(editable)s::boolean[])
        as w (room, event_id, sender, type, editable)
),
threads as materialized (
    select w.room, w.event_id, t.replies, t.took_part, e.event_id as latest_id, e.type, e.sender, e.device_id, e.txn_id, e.json
    from wanted w
    cross join lateral (
        select count(*) as replies, bool_or(c.sender = %(user_id)s) as took_part,
               (array_agg(c.entry order by c.timeline desc))[1] as entry
        from (
            select l.entry, l.timeline, l.sender
            from roomserver.relations l
            where l.target = w.event_id and l.rel_type = 'm.thread' and l.room = w.room and l.sender <> all (%(ignored)s::text[])
              and exists (
                  select from unnest(%(span_rooms)s::bigint[], %(after)s::bigint[], %(upto)s::bigint[]) as s (room, after, upto)
                  where s.room = l.room and l.timeline > s.after and l.timeline <= s.upto)
              and not exists (select from roomserver.redactions x where x.target = l.event_id)
              and not (l.room = any (%(strange)s::bigint[])
                       and exists (select from roomserver.erased x where x.user_id = l.sender))
            order by l.timeline desc
            limit %(most_replies)s
        ) c
    ) t
    cross join lateral (
        select n.event_id, n.type, n.sender, n.device_id, n.txn_id, n.json
        from eventlog.events n
        where n.id = t.entry and n.kind in ('s', 'm')
        limit 1
    ) e
    where t.replies > 0
),
parents as materialized (
    select w.room, w.event_id, w.sender, w.type, w.editable from wanted w
    union
    select t.room, t.latest_id, t.sender, t.type, true from threads t
),
edits as (
    select p.event_id as parent, e.event_id, e.type, e.sender, e.device_id, e.txn_id, e.json
    from parents p
    cross join lateral (
        select n.event_id, n.type, n.sender, n.device_id, n.txn_id, n.json
        from (
            select l.entry
            from roomserver.relations l
            where l.target = p.event_id and l.rel_type = 'm.replace' and l.room = p.room and l.sender = p.sender
              and exists (
                  select from unnest(%(span_rooms)s::bigint[], %(after)s::bigint[], %(upto)s::bigint[]) as s (room, after, upto)
                  where s.room = l.room and l.timeline > s.after and l.timeline <= s.upto)
              and not exists (select from roomserver.redactions x where x.target = l.event_id)
              and not (l.room = any (%(strange)s::bigint[])
                       and exists (select from roomserver.erased x where x.user_id = l.sender))
            order by l.timeline desc
            limit %(most_edits)s
        ) r
        cross join lateral (
            select m.event_id, m.type, m.sender, m.device_id, m.txn_id, m.json
            from eventlog.events m
            where m.id = r.entry and m.kind = 'm' and m.type = p.type
            limit 1
        ) n
        where n.type = 'm.room.encrypted' or json_typeof(history.safe_json(n.json) #> '{content,m.new_content}') = 'object'
        order by history.sent_time(n.json) desc, n.event_id desc
        limit 1
    ) e
    where p.editable
),
referring as (
    select p.event_id as parent, r.event_id
    from parents p
    cross join lateral (
        select l.event_id
        from roomserver.relations l
        where l.target = p.event_id and l.rel_type = 'm.reference' and l.room = p.room and l.sender <> all (%(ignored)s::text[])
          and exists (
              select from unnest(%(span_rooms)s::bigint[], %(after)s::bigint[], %(upto)s::bigint[]) as s (room, after, upto)
              where s.room = l.room and l.timeline > s.after and l.timeline <= s.upto)
          and not exists (select from roomserver.redactions x where x.target = l.event_id)
        order by l.timeline
        limit %(most_references)s
    ) r
)
select 'm.thread', t.event_id, t.latest_id, t.type, t.sender, t.device_id, t.txn_id, t.json, t.replies, t.took_part
from threads t
union all
select 'm.replace', d.parent, d.event_id, d.type, d.sender, d.device_id, d.txn_id, d.json, null, null
from edits d
union all
select 'm.reference', f.parent, f.event_id, null, null, null, null, null, null, null
from referring f
