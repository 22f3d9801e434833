-- index --
-- Takes documents in, each with the number of its room among the words.
insert into search.documents (entry, room, timeline, sent_at, event_id, type, sender, key, words)
select d.entry, d.room, d.timeline, d.sent_at, d.event_id, d.type, d.sender, d.key,
       to_tsvector(%(language)s::regconfig, d.body) || array_to_tsvector(array['!' || d.room])
from unnest(%(entries)s::bigint[], %(rooms)s::bigint[], %(timelines)s::bigint[], %(sent)s::bigint[], %(event_ids)s::text[],
            %(types)s::text[], %(senders)s::text[], %(keys)s::text[], %(bodies)s::text[])
    as d (entry, room, timeline, sent_at, event_id, type, sender, key, body)
on conflict do nothing

-- remove --
-- Takes redacted events out.
delete from search.documents where event_id = any(%(event_ids)s)

-- tidy --
-- Takes documents out whose events have left the log since partitions were dropped.
delete from search.documents d
where d.entry < (select max(g.entry) from eventlog.edges g where g.kind = 'm')
  and not exists (select from eventlog.events e where e.id = d.entry and e.kind in ('s', 'm'))

-- scrub --
-- Takes documents of rooms and users out whose events no longer say anything, and those of rooms that are gone.
delete from search.documents d
where (
        d.sender = any(%(users)s)
        or d.room in (select r.nid from roomserver.rooms r where r.room_id = any(%(rooms)s))
        or not exists (select from roomserver.rooms r where r.nid = d.room)
    )
    and not exists (
        select from eventlog.events e
        where e.id = d.entry and e.kind in ('s', 'm')
          and (history.safe_json(e.json) #>> array['content', split_part(d.key, '.', 2)] is not null
               or (d.key = 'content.topic' and history.safe_json(e.json) #> '{content,m.topic}' is not null))
    )

-- clear --
-- Takes all documents out.
truncate search.documents

-- rooms --
-- The rooms in which a user may search: where they are, and where they were, as far as they have not forgotten it.
select m.room
from roomserver.memberships m
join roomserver.rooms r on r.nid = m.room
where m.user_id = %(user_id)s and (m.membership = 'j' or (m.joined_at is not null and m.membership in ('l', 'b') and not m.forgotten))
  and (%(rooms)s::text[] is null or r.room_id = any(%(rooms)s))
  and not r.room_id = any(%(not_rooms)s)

-- matches --
-- The newest documents that match, counted to a bound, and a page of them in the order asked for.
with asked as materialized (
    select websearch_to_tsquery(%(language)s::regconfig, %(term)s) as words
),
found as materialized (
    select d.entry, d.room, d.sent_at, d.sender, ts_rank_cd(d.words, a.words) as rank
    from asked a
    join search.documents d on d.words @@ (a.words && %(narrow)s::tsquery)
    where numnode(a.words) > 0 and d.room = any(%(rooms)s) and d.key = any(%(keys)s)
      and (%(types)s::text[] is null or d.type like any(%(types)s)) and not d.type like any(%(not_types)s)
      and (%(senders)s::text[] is null or d.sender = any(%(senders)s)) and not d.sender = any(%(not_senders)s)
    order by d.sent_at desc, d.entry desc
    limit %(most)s
),
page as (
    select f.entry, f.room, f.sent_at, f.sender, f.rank
    from found f
    where case when %(after_rank)s::real is not null then (f.rank, f.entry) < (%(after_rank)s::real, %(after_entry)s::bigint)
               when %(after_sent)s::bigint is not null then (f.sent_at, f.entry) < (%(after_sent)s::bigint, %(after_entry)s::bigint)
               else true end
      and (%(group_room)s::text is null or f.room = (select r.nid from roomserver.rooms r where r.room_id = %(group_room)s))
      and (%(group_sender)s::text is null or f.sender = %(group_sender)s)
    order by case when %(by_rank)s then f.rank end desc, case when not %(by_rank)s then f.sent_at end desc, f.entry desc
    limit %(page)s
)
select c.count, p.entry, r.room_id, p.sent_at, p.rank
from (select count(*) from found) c
left join (page p join roomserver.rooms r on r.nid = p.room) on true
order by case when %(by_rank)s then p.rank end desc, case when not %(by_rank)s then p.sent_at end desc, p.entry desc

-- around --
-- What stands directly before and after events in their rooms' timelines, the nearest first.
select w.i::int, o.before, o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id,
       e.txn_id, e.json, x.redaction
from unnest(%(rooms)s::bigint[], %(timelines)s::bigint[]) with ordinality as w (room, timeline, i)
cross join lateral (
    (select true as before, p.timeline, p.position, p.line, p.annotation, p.entry, p.kind
     from eventlog.outputs p
     where p.room = w.room and p.kind in ('s', 'm') and p.verdict = 'a' and p.timeline is not null and p.timeline < w.timeline
     order by p.timeline desc
     limit %(before)s)
    union all
    (select false, p.timeline, p.position, p.line, p.annotation, p.entry, p.kind
     from eventlog.outputs p
     where p.room = w.room and p.kind in ('s', 'm') and p.verdict = 'a' and p.timeline is not null and p.timeline > w.timeline
     order by p.timeline
     limit %(after)s)
) o
cross join lateral (
    select n.event_id, n.type, n.state_key, n.sender, n.device_id, n.txn_id, n.json
    from eventlog.events n
    where n.id = o.entry and n.kind = o.kind and n.kind in ('s', 'm')
    limit 1
) e
left join roomserver.redactions x on x.target = e.event_id
order by w.i, o.before, abs(o.timeline - w.timeline)

-- members --
-- Membership events of users, each in a room after a position of its main line, and whether these users are erased.
select r.i::int, s.state_key, e.json, x.redaction is not null, exists (select from roomserver.erased g where g.user_id = s.state_key)
from unnest(%(rooms)s::bigint[], %(at)s::bigint[], %(users)s::text[]) with ordinality as r (room, at, user_id, i)
join roomserver.state s on s.room = r.room and s.line = 0 and s.type = 'm.room.member' and s.state_key = r.user_id
    and s.valid_from <= r.at and s.valid_to > r.at
join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = e.event_id

-- states --
-- The state of rooms, each after a position of its main line.
select r.i::int, o.timeline, o.position, o.line, o.annotation, e.event_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id,
       e.json, x.redaction
from unnest(%(rooms)s::bigint[], %(at)s::bigint[]) with ordinality as r (room, at, i)
cross join lateral roomserver.state_at_v2(r.room, 0, r.at) s
join eventlog.events e on e.id = s.entry and e.kind = 's'
join eventlog.outputs o on o.entry = s.entry and o.kind = 's'
left join roomserver.redactions x on x.target = e.event_id

-- headlines --
-- Texts with the words that a search found in them marked.
select ts_headline(%(language)s::regconfig, b.body, websearch_to_tsquery(%(language)s::regconfig, %(term)s),
                   'HighlightAll=true, StartSel=' || chr(57344) || ', StopSel=' || chr(57345))
from unnest(%(bodies)s::text[]) as b (body)
