-- lock --
-- One at a time takes things out of the log.
select pg_try_advisory_lock(1466004581)

-- unlock --
-- Lets another one.
select pg_advisory_unlock(1466004581)

-- take_time --
-- Looking through a whole partition takes longer than a statement of a component may.
select set_config('statement_timeout', '0', false)

-- expired --
-- Partitions of a kind that are older than some days, oldest first, and what the last of them waits for.
select label, low, high, waits_for
from eventlog.expired_spans(%(kind)s::"char", eventlog.id_at(now() - make_interval(secs => %(days)s * 86400)))

-- sizes --
-- Rows (as the last analysis counted them) and bytes of a partition of both logs.
select sum(greatest(c.reltuples, 0))::bigint, sum(pg_total_relation_size(c.oid))::bigint
from pg_class c
where c.relnamespace = 'eventlog'::regnamespace
  and c.relname in ('events_' || %(kind)s || '_' || %(label)s, 'outputs_' || %(kind)s || '_' || %(label)s)

-- survivors --
-- What must outlive the partitions of a kind before an entry id.
select survivors from eventlog.survivors(%(kind)s::"char", %(before)s, %(rooms)s::bigint[])

-- begin_keep --
-- Makes the tables that survivors are copied to.
select eventlog.begin_keep(%(kind)s::"char", %(before)s)

-- keep --
-- Copies survivors; returns how many.
select eventlog.keep(%(kind)s::"char", %(entries)s::bigint[])

-- retire --
-- Takes partitions out of the logs.
select eventlog.retire(%(kind)s::"char", %(before)s, %(labels)s::text[])

-- retired --
-- Tables that were taken out and are still there.
select name from eventlog.retired()

-- forget_retired --
-- Removes what side tables have of the next entries of a table that was taken out.
select last, seen, gone from eventlog.forget_retired(%(name)s, %(after)s, %(most)s)

-- drop_retired --
-- Drops a table that was taken out; returns its bytes.
select eventlog.drop_retired(%(name)s)

-- begin_record --
-- Notes that something begins to leave the log, or is taken up again.
with again as (
    update eventlog.erasures
    set requested_by = %(by)s
    where ended_at is null and action = %(action)s and subject = %(subject)s
    returning id
),
fresh as (
    insert into eventlog.erasures (action, subject, requested_by, detail)
    select %(action)s, %(subject)s, %(by)s, %(detail)s
    where not exists (select from again)
    returning id
)
select id from again union all select id from fresh

-- count_record --
-- Adds to what a record says has left.
update eventlog.erasures
set events = events + %(events)s, kept = kept + %(kept)s, bytes = bytes + %(bytes)s
where id = %(id)s

-- end_record --
-- Notes that it is done.
update eventlog.erasures set ended_at = now() where id = %(id)s

-- count_today --
-- Adds to the day's record of what happens by itself.
with again as (
    update eventlog.erasures
    set events = events + %(events)s, kept = greatest(kept, %(kept)s), ended_at = now()
    where action = %(action)s and subject = %(subject)s and requested_by = 'maintenance'
      and began_at >= date_trunc('day', now() at time zone 'utc') at time zone 'utc'
    returning id
)
insert into eventlog.erasures (action, subject, requested_by, events, kept, ended_at)
select %(action)s, %(subject)s, 'maintenance', %(events)s, %(kept)s, now()
where not exists (select from again)

-- forget_records --
-- Records older than ten years.
delete from eventlog.erasures where began_at < now() - interval '10 years'

-- room_policies --
-- What rooms say in m.room.retention, where that is a number of milliseconds.
select n.nid, n.room_id, history.json_text(e.json, 'content', 'max_lifetime')
from roomserver.rooms n
join roomserver.state s on s.room = n.nid and s.line = 0 and s.type = 'm.room.retention' and s.state_key = ''
    and s.valid_to = 9223372036854775807
join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = e.event_id
where x.target is null and history.json_text(e.json, 'content', 'max_lifetime') ~ '^[0-9]{1,16}$'

-- room --
-- A room's number, and how many members of this server it has or has invited.
select n.nid, (
    select count(*) from roomserver.memberships m
    where m.room = n.nid and m.membership in ('j', 'i') and substr(m.user_id, strpos(m.user_id, ':') + 1) = %(server)s)
from roomserver.rooms n
where n.room_id = %(room_id)s

-- id_at --
-- The first entry id of a moment.
select eventlog.id_at(%(moment)s::timestamptz)

-- id_before --
-- The first entry id of a moment so many days ago.
select eventlog.id_at(now() - make_interval(secs => %(days)s * 86400))

-- purgeable --
-- The next messages of a room that came before an entry id, and whether each is needed.
select entry, timeline, stays from eventlog.purgeable(%(room)s, %(before)s, %(after)s, %(most)s)

-- remove --
-- Removes entries of a kind.
select eventlog.remove_entries(%(kind)s::"char", %(entries)s::bigint[])

-- events_of_room --
-- All entries of a room.
select id, kind::text from eventlog.events where room_id = %(room_id)s order by id

-- count_room --
-- How many entries of each kind a room has.
select kind::text, count(*) from eventlog.events where room_id = %(room_id)s group by kind

-- purge_room --
-- Removes the next part of what tables have of a room; 0 when it has gone.
select roomserver.purge_room(%(room_id)s, %(most)s)

-- unscrubbed --
-- Redacted events whose content is still there some days after their redaction.
select d.target, e.id, e.json, n.room_version
from roomserver.redactions d
join roomserver.rooms n on n.nid = d.room
join eventlog.event_keys k on k.key = eventlog.event_key(d.target)
join eventlog.events e on e.id = k.id and e.kind in ('s', 'm')
where not d.scrubbed and d.entry < eventlog.id_at(now() - make_interval(secs => %(days)s * 86400))
order by d.entry
limit %(most)s

-- unscrubbed_number --
-- How many there are.
select count(*)
from roomserver.redactions d
where not d.scrubbed and d.entry < eventlog.id_at(now() - make_interval(secs => %(days)s * 86400))

-- successors --
-- Outputs that repeat the content of state events which they replaced.
select o.entry, o.annotation
from roomserver.rooms n
join roomserver.state s on s.room = n.nid
join eventlog.outputs o on o.shard = n.shard and o.position = s.valid_to and o.kind in ('s', 'm')
where s.entry = any (%(entries)s::bigint[]) and s.room = any (%(rooms)s::bigint[]) and position('"prev_content":' in o.annotation) > 0

-- rooms_of --
-- The rooms of entries.
select distinct o.room from eventlog.outputs o where o.entry = any (%(entries)s::bigint[]) and o.room is not null

-- scrub --
-- Puts scrubbed events in the place of events.
select eventlog.scrub(%(entries)s::bigint[], %(documents)s::text[])

-- scrub_notes --
-- Puts scrubbed annotations in the place of annotations.
select eventlog.scrub_notes(%(entries)s::bigint[], %(annotations)s::text[])

-- redactions_scrubbed --
-- Notes that the content of redacted events is gone.
select roomserver.redactions_scrubbed(%(targets)s::text[])

-- forget_claims --
-- Transaction ids whose entries have gone.
delete from eventlog.txns t
where t.key in (
    select c.key from eventlog.txns c where not exists (select from eventlog.events e where e.id = c.entry) limit %(most)s)

-- account --
-- Whether an account is there, and when it was deactivated.
select deactivated_at from writer.accounts where user_id = %(user_id)s

-- events_of_user --
-- A user's messages, own membership events, and entries that hold their data.
select e.id, e.kind::text, e.json, n.room_version
from eventlog.events e
left join roomserver.rooms n on n.room_id = e.room_id
where e.sender = %(user_id)s
  and (e.kind = 'm' or (e.kind = 'u' and e.type in ('account_data', 'profile', 'm.receipt'))
       or (e.kind = 's' and e.type = 'm.room.member' and e.state_key = %(user_id)s))
order by e.id

-- count_user --
-- How many there are of each kind.
select e.kind::text, count(*)
from eventlog.events e
where e.sender = %(user_id)s
  and (e.kind = 'm' or (e.kind = 'u' and e.type in ('account_data', 'profile', 'm.receipt'))
       or (e.kind = 's' and e.type = 'm.room.member' and e.state_key = %(user_id)s))
group by e.kind

-- purge_user --
-- Removes a user's last values.
select roomserver.purge_user(%(user_id)s)

-- records --
-- The newest records of what has left the log.
select began_at, action, subject, requested_by, events, kept, bytes, ended_at, detail
from eventlog.erasures
order by id desc
limit %(most)s
