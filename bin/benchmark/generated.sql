-- make_schema --
-- What the generator works with is apart from what it makes.
create schema generated

-- make_event_id --
-- The id of the event of a number: as long as a real one, and as random.
create function generated.event_id(n bigint) returns text
language sql immutable parallel safe
return '$' || translate(substr(encode(sha256(int8send(n)), 'base64'), 1, 43), '+/', '-_')

-- make_entry --
-- The entry of the event of a number: numbers are spread evenly over the time.
create function generated.entry(n bigint, began_ms bigint, step_us bigint) returns bigint
language sql immutable parallel safe
return ((began_ms + n * step_us / 1000) << 20) | (n & 1048575)

-- make_sender --
-- The member of a number.
create function generated.member(n bigint) returns text
language sql immutable parallel safe
return '@user' || n || ':test.example'

-- make_rooms --
-- Rooms: the first takes a fifth of all events, the second a tenth, the others a slot each.
create table generated.rooms as
select s.room, '!' || substr(encode(sha256(int8send(-s.room)), 'hex'), 1, 18) || ':test.example' as room_id,
       case s.room when 1 then %(members)s::bigint * 100 when 2 then %(members)s::bigint * 20 else %(members)s::bigint end as members
from (select distinct case when g < %(slots)s / 5 then 1 when g < %(slots)s * 3 / 10 then 2
             else g - %(slots)s * 3 / 10 + 3 end::bigint as room
      from generate_series(0, %(slots)s - 1) as g) s
order by s.room

-- make_slots --
-- Which room the events of a slot are in.
create table generated.slots as
select g as slot, case when g < %(slots)s / 5 then 1 when g < %(slots)s * 3 / 10 then 2
       else g - %(slots)s * 3 / 10 + 3 end::bigint as room
from generate_series(0, %(slots)s - 1) as g

-- make_setup --
-- The first events of all rooms: creation, settings, a join of every member.
create table generated.setup as
select row_number() over (order by r.room, k.ordinal, m.member) as n, r.room, r.room_id, k.type,
       case k.type when 'm.room.member' then generated.member(m.member) else '' end as state_key,
       generated.member(coalesce(m.member, 0)) as sender,
       case k.type
           when 'm.room.create' then '{"creator":"' || generated.member(0) || '","room_version":"11"}'
           when 'm.room.member' then '{"displayname":"User ' || m.member || '","membership":"join"}'
           when 'm.room.power_levels' then '{"users":{"' || generated.member(0) || '":100}}'
           when 'm.room.join_rules' then '{"join_rule":"public"}'
           when 'm.room.history_visibility' then '{"history_visibility":"shared"}'
           else '{"name":"Room ' || r.room || '"}' end as content
from generated.rooms r
cross join (values (1, 'm.room.create'), (2, 'm.room.member'), (3, 'm.room.power_levels'), (4, 'm.room.join_rules'),
                   (5, 'm.room.history_visibility'), (6, 'm.room.name'), (7, 'm.room.member')) as k (ordinal, type)
left join lateral (
    select g as member from generate_series(0, r.members - 1) as g
    where k.type = 'm.room.member' and (g = 0) = (k.ordinal = 2)
) m on true
where m.member is not null or k.type <> 'm.room.member'

-- make_places --
-- Where each room's first events are among all.
alter table generated.rooms add column first bigint, add column create_event text, add column join_event text,
    add column levels_event text

-- set_places --
-- The number of each room's create event.
update generated.rooms r
set first = s.n, create_event = generated.event_id(s.n), join_event = generated.event_id(s.n + 1),
    levels_event = generated.event_id(s.n + 2)
from generated.setup s
where s.room = r.room and s.type = 'm.room.create'

-- count_setup --
-- How many events the rooms begin with.
select count(*) from generated.setup

-- insert_rooms --
-- The rooms.
insert into roomserver.rooms (nid, room_id, room_version, shard, created_at)
select r.room, r.room_id, '11', 0, eventlog.entry_time(generated.entry(r.first, %(began)s, %(step)s))
from generated.rooms r

-- drop_ids_key --
-- The ids are indexed once they are all there.
alter table eventlog.event_keys drop constraint event_keys_pkey

-- add_ids_key --
-- The index of the ids.
alter table eventlog.event_keys add primary key (key)

-- insert_setup --
-- The first events of all rooms, judged.
with said as (
    select s.n, generated.entry(s.n, %(began)s, %(step)s) as id, generated.event_id(s.n) as event_id, s.room, s.room_id, s.type,
           s.state_key, s.sender, s.content, r.first
    from generated.setup s
    join generated.rooms r on r.room = s.room
),
logged as (
    insert into eventlog.events (id, kind, shard, local, seq, event_id, room_id, type, state_key, sender, json)
    select s.id, 's', 0, true, s.n - s.first + 1, s.event_id, s.room_id, s.type, s.state_key, s.sender,
           '{"auth_events":[' || case when s.n = s.first then ''
               when s.n = s.first + 1 then '"' || generated.event_id(s.first) || '"'
               when s.n = s.first + 2 then '"' || generated.event_id(s.first) || '","' || generated.event_id(s.first + 1) || '"'
               when s.type = 'm.room.member' then '"' || generated.event_id(s.first) || '","' || generated.event_id(s.first + 2)
                   || '","' || generated.event_id(s.first + 3) || '"'
               else '"' || generated.event_id(s.first) || '","' || generated.event_id(s.first + 2)
                   || '","' || generated.event_id(s.first + 1) || '"' end
           || '],"content":' || s.content || ',"depth":' || (s.n - s.first + 1)
           || ',"hashes":{"sha256":"' || substr(s.event_id, 2) || '"},"origin_server_ts":' || (s.id >> 20)
           || ',"prev_events":[' || case when s.n = s.first then '' else '"' || generated.event_id(s.n - 1) || '"' end
           || '],"room_id":"' || s.room_id || '","sender":"' || s.sender
           || '","signatures":{"test.example":{"ed25519:a_test":"' || repeat(substr(s.event_id, 2), 2) || '"}},"state_key":"'
           || s.state_key || '","type":"' || s.type || '"}'
    from said s
),
ids as (
    insert into eventlog.event_keys (key, id) select eventlog.event_key(s.event_id), s.id from said s
)
insert into eventlog.outputs (shard, position, kind, entry, room, verdict, timeline, annotation)
select 0, s.n, 's', s.id, s.room, 'a', s.n, '{"current":true}'
from said s

-- insert_events --
-- A stretch of events, judged: of fifty in a slot there are thirty-odd messages, edits, reactions, replies in threads, a redaction, an
-- encrypted message and two state changes.
with numbered as (
    select %(setup)s + 1 + i as n, (i / %(slots)s) %% 50 as step, (i / %(slots)s) / 50 as block,
           i %% %(slots)s as slot
    from generate_series(%(from)s::bigint, %(to)s::bigint - 1) as i
),
aimed as (
    select x.n, x.step, x.block, r.room, r.room_id, r.members, r.create_event, r.join_event, r.levels_event,
           generated.entry(x.n, %(began)s, %(step)s) as id,
           case
               when x.step in (34, 35) then x.n - %(slots)s * x.step
               when x.step between 36 and 40 then x.n - %(slots)s * (x.step - 1)
               when x.step between 41 and 45 then x.n - %(slots)s * (x.step - 2 + 50 * (x.block %% 5))
               when x.step = 46 then x.n - %(slots)s * 43 end as target,
           1 + (x.block * 31 + x.slot) %% (r.members - 1) as subject
    from numbered x
    join generated.slots l on l.slot = x.slot
    join generated.rooms r on r.room = l.room
),
said as (
    select a.n, a.id, generated.event_id(a.n) as event_id, a.room, a.room_id, a.step, a.block, a.target,
           a.create_event, a.join_event, a.levels_event,
           case a.step when 46 then 'm.room.redaction' when 47 then 'm.room.encrypted' when 48 then 'm.room.member'
               when 49 then (array['m.room.power_levels', 'm.room.topic', 'm.room.name'])[a.block %% 3 + 1]
               else case when a.step between 36 and 40 then 'm.reaction' else 'm.room.message' end end as type,
           case a.step when 48 then generated.member(a.subject) when 49 then '' end as state_key,
           generated.member(case
               when a.step = 48 and a.block %% 10 = 0 or a.step = 49 or a.step = 46 then 0
               when a.step = 48 then a.subject
               when a.step in (34, 35) then a.target * 7919 %% a.members
               else a.n * 7919 %% a.members end) as sender,
           case
               when a.step in (34, 35) then '{"body":"* better words ' || a.n || '","m.new_content":{"body":"better words ' || a.n
                   || '","msgtype":"m.text"},"m.relates_to":{"event_id":"' || generated.event_id(a.target)
                   || '","rel_type":"m.replace"},"msgtype":"m.text"}'
               when a.step between 36 and 40 then '{"m.relates_to":{"event_id":"' || generated.event_id(a.target) || '","key":"'
                   || (array[U&'\+01F44D', U&'\+01F389', U&'\+002764', U&'\+01F986', U&'\+01F914'])[a.step - 35] || '","rel_type":"m.annotation"}}'
               when a.step between 41 and 45 then '{"body":"an answer, number ' || a.n || '","m.relates_to":{"event_id":"'
                   || generated.event_id(a.target) || '","rel_type":"m.thread"},"msgtype":"m.text"}'
               when a.step = 46 then '{"reason":"spam","redacts":"' || generated.event_id(a.target) || '"}'
               when a.step = 47 then '{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"' || repeat('A', 200)
                   || '","device_id":"ABCDEFGH","sender_key":"' || substr(generated.event_id(a.n), 2) || '","session_id":"'
                   || substr(generated.event_id(-a.block), 2) || '"}'
               when a.step = 48 and a.block %% 10 = 0 then '{"membership":"leave","reason":"rule 2"}'
               when a.step = 48 and a.block %% 2 = 0 then '{"membership":"leave"}'
               when a.step = 48 then '{"displayname":"User ' || a.subject || '","membership":"join"}'
               when a.step = 49 and a.block %% 3 = 0 then '{"users":{"' || generated.member(0) || '":100,"'
                   || generated.member(1 + a.block %% (a.members - 1)) || '":50}}'
               when a.step = 49 and a.block %% 3 = 1 then '{"topic":"Topic ' || a.n || '"}'
               when a.step = 49 then '{"name":"Room ' || a.room || ', as of ' || a.n || '"}'
               else '{"body":"message ' || a.n || ' about '
                   || (array['ponds', 'ducks', 'bread', 'the weather', 'a meeting', 'the release', 'lunch'])[a.n %% 7 + 1]
                   || '","msgtype":"m.text"}' end as content
    from aimed a
),
logged as (
    insert into eventlog.events (id, kind, shard, local, seq, event_id, room_id, type, state_key, sender, json)
    select s.id, (case when s.state_key is null then 'm' else 's' end)::"char", 0, true, s.n, s.event_id, s.room_id, s.type, s.state_key,
           s.sender,
           '{"auth_events":["' || s.create_event || '","'
           || case when s.step = 49 and s.block > 2 and s.block %% 3 = 0 then generated.event_id(s.n - 150 * %(slots)s)
               else s.levels_event end
           || '","' || s.join_event || '"],"content":' || s.content || ',"depth":' || s.n
           || ',"hashes":{"sha256":"' || substr(s.event_id, 2) || '"},"origin_server_ts":' || (s.id >> 20)
           || ',"prev_events":["' || generated.event_id(s.n - 1) || '"],"room_id":"' || s.room_id || '","sender":"' || s.sender
           || '","signatures":{"test.example":{"ed25519:a_test":"' || repeat(substr(s.event_id, 2), 2) || '"}}'
           || coalesce(',"state_key":"' || s.state_key || '"', '') || ',"type":"' || s.type || '"}'
    from said s
    order by s.n
),
ids as (
    insert into eventlog.event_keys (key, id) select eventlog.event_key(s.event_id), s.id from said s
),
related as (
    insert into roomserver.relations (target, rel_type, timeline, entry, room, event_id, sender)
    select generated.event_id(s.target),
           case when s.step < 36 then 'm.replace' when s.step < 41 then 'm.annotation' else 'm.thread' end,
           s.n, s.id, s.room, s.event_id, s.sender
    from said s
    where s.step between 34 and 45
),
redacted as (
    insert into roomserver.redactions (target, redaction, entry, room, position)
    select generated.event_id(s.target), s.event_id, s.id, s.room, s.n
    from said s
    where s.step = 46
)
insert into eventlog.outputs (shard, position, kind, entry, room, verdict, timeline, annotation)
select 0, s.n, (case when s.state_key is null then 'm' else 's' end)::"char", s.id, s.room, 'a', s.n,
       case when s.state_key is not null then '{"current":true}'
           when s.step = 46 then '{"redacts":"' || generated.event_id(s.target) || '"}' end
from said s
order by s.n

-- insert_state --
-- State over time, as the state events say.
insert into roomserver.state (room, line, type, state_key, valid_from, valid_to, entry, membership)
select o.room, 0, e.type, e.state_key, o.position,
       coalesce(lead(o.position) over (partition by o.room, e.type, e.state_key order by o.position), 9223372036854775807),
       e.id,
       (case when e.type = 'm.room.member' then substr(history.json_text(e.json, 'content', 'membership'), 1, 1) end)::"char"
from eventlog.outputs o
join eventlog.events e on e.id = o.entry and e.kind = 's'
where o.kind = 's'

-- insert_memberships --
-- What each member is now.
insert into roomserver.memberships (user_id, room, membership, position, entry, sender, joined_at)
select s.state_key, s.room, s.membership, s.valid_from, s.entry,
       case when s.membership = 'j' then s.state_key else generated.member(0) end,
       s.valid_from
from roomserver.state s
where s.type = 'm.room.member' and s.valid_to = 9223372036854775807

-- insert_heads --
-- Where each room stands.
insert into roomserver.heads (room, extremities, depth, position, state_position, judged_seq, joined, invited)
select o.room, '{}', max(o.position), max(o.position), max(o.position), max(o.position),
       (select count(*) from roomserver.memberships m where m.room = o.room and m.membership = 'j'), 0
from eventlog.outputs o
group by o.room

-- insert_receipts --
-- A receipt of every member, on one of the last events.
insert into roomserver.receipts (room, user_id, receipt_type, thread_id, event_id, event_position, ts, shard, position)
select m.room, m.user_id, 'm.read', '', generated.event_id(n.n), n.n, generated.entry(n.n, %(began)s, %(step)s) >> 20, 0, n.n
from (select m.room, m.user_id, row_number() over (order by m.user_id, m.room) as number
      from roomserver.memberships m where m.membership = 'j') m
cross join lateral (select %(setup)s + %(events)s - m.number as n) n

-- insert_position --
-- How far the room server would be.
insert into eventlog.positions (component, shard, position, lsn, epoch)
select 'roomserver', 0, %(setup)s + %(events)s, '0/0', 'generated'

-- fold_activity --
-- Counts the next events by day.
select activity.fold_v1(%(most)s)

-- insert_resolutions --
-- Some conflicts about power levels that were resolved.
insert into roomserver.resolutions (room, position, purpose, algorithm, inputs, outcome, resolved_at)
select s.room, s.valid_from, 'current', 'v2',
       '{"branches":["' || e.event_id || '"],"conflicts":[{"type":"m.room.power_levels","state_key":"","candidates":["'
       || e.event_id || '"],"winner":"' || e.event_id || '"}]}',
       '{"algorithm":"v2","refused":{}}', eventlog.entry_time(s.entry)
from roomserver.state s
join eventlog.events e on e.id = s.entry and e.kind = 's'
where s.type = 'm.room.power_levels' and s.valid_from %% 4 = 0

-- insert_installation --
-- Whose log this would be.
insert into eventlog.installation (server_name, signing_key_id, signing_key, shards)
values ('test.example', 'ed25519:a_test', 'none', 1)
on conflict do nothing

-- make_month --
-- The first moments of the months that the events are spread over, with the partitions that they want.
select v.parent || '_' || to_char(m, 'yyyymmdd'), v.parent, eventlog.id_at(m at time zone 'utc'),
       eventlog.id_at((m + v.step) at time zone 'utc')
from (values ('events_m', interval '1 month'), ('outputs_m', interval '1 month'),
             ('events_s', interval '1 year'), ('outputs_s', interval '1 year')) as v (parent, step)
cross join generate_series(
    date_trunc(case when v.step = '1 year' then 'year' else 'month' end, to_timestamp(%(began)s / 1000.0) at time zone 'utc'),
    now() at time zone 'utc', v.step) as m
where to_regclass('eventlog.' || v.parent || '_' || to_char(m, 'yyyymmdd')) is null

-- commit_fast --
-- What is made here can be made again: commits need not wait for the disk.
set synchronous_commit = off

-- become_history --
-- As a person who may read the history.
set role walden_history

-- subjects --
-- The largest room, a small one, a message, a member, the beginning of a thread.
select (select r.room_id from roomserver.rooms r where r.nid = 1),
       (select r.room_id from roomserver.rooms r order by r.nid desc limit 1),
       (select e.event_id
        from eventlog.outputs o
        join eventlog.events e on e.id = o.entry and e.kind = 'm'
        where o.room = 1 and o.kind = 'm' and o.timeline is not null
        order by o.timeline desc limit 1 offset 300),
       generated.member(1),
       (select t.root from roomserver.threads t where t.room = 1 order by t.begun desc limit 1 offset 3)
