-- History in SQL: edits, reactions, threads, state over time, who could see what and why a state is what it is, receipts, daily activity.

create schema activity;
comment on schema activity is 'Written by maintenance: what people did by day, counted from the outputs.';

create table roomserver.threads (
    room bigint not null,
    root text collate "C" not null,
    begun bigint not null,
    entry bigint not null,
    event_id text collate "C" not null,
    primary key (room, root)
);
create unique index threads_begun on roomserver.threads (room, begun);
comment on table roomserver.threads is 'A row per thread, written with the first reply: so that the threads of a room are a list, however long they are.';
comment on column roomserver.threads.room is 'roomserver.rooms.nid.';
comment on column roomserver.threads.root is 'Event id of the message that began it.';
comment on column roomserver.threads.begun is 'Timeline order of the first reply that is known here.';
comment on column roomserver.threads.entry is 'Entry of that reply.';
comment on column roomserver.threads.event_id is 'Event id of that reply.';

drop index roomserver.relations_threads;
create index relations_room on roomserver.relations (room, rel_type, timeline);

-- What there is has its threads too.
insert into roomserver.threads (room, root, begun, entry, event_id)
select distinct on (l.room, l.target) l.room, l.target, l.timeline, l.entry, l.event_id
from roomserver.relations l
where l.rel_type = 'm.thread'
order by l.room, l.target, l.timeline;

-- The first reply begins a thread: also one that was fetched later and stands earlier. A trigger, for whoever writes a relation means this as well; others than replies do not pay for it.
create function roomserver.begin_thread() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    insert into roomserver.threads (room, root, begun, entry, event_id)
    values (new.room, new.target, new.timeline, new.entry, new.event_id)
    on conflict (room, root) do update
    set begun = excluded.begun, entry = excluded.entry, event_id = excluded.event_id
    where threads.begun > excluded.begun;
    return null;
end
$$;
comment on function roomserver.begin_thread() is 'Notes the thread that a reply begins.';

create trigger begin_thread after insert on roomserver.relations
for each row when (new.rel_type = 'm.thread') execute function roomserver.begin_thread();

-- The other way round where retention or a purge takes replies away: the next one begins the thread, or there is none any more.
create function roomserver.end_thread() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    delete from roomserver.threads t where t.room = old.room and t.root = old.target and t.begun = old.timeline;
    if found then
        insert into roomserver.threads (room, root, begun, entry, event_id)
        select l.room, l.target, l.timeline, l.entry, l.event_id
        from roomserver.relations l
        where l.target = old.target and l.rel_type = 'm.thread' and l.room = old.room
        order by l.timeline
        limit 1
        on conflict (room, root) do nothing;
    end if;
    return null;
end
$$;
comment on function roomserver.end_thread() is 'Forgets the thread that a reply began, or lets the next reply begin it.';

create trigger end_thread after delete on roomserver.relations
for each row when (old.rel_type = 'm.thread') execute function roomserver.end_thread();

-- What people did by day, counted by maintenance from the outputs: activity.fold_v1. Its position is that of the component activity.
create table activity.users (
    sender text collate "C" not null,
    day date not null,
    room bigint not null,
    messages integer not null,
    edits integer not null,
    reactions integer not null,
    changes integer not null,
    primary key (sender, day, room)
) with (fillfactor = 80);
comment on table activity.users is 'What a user did in a room on a day.';
comment on column activity.users.sender is 'The user.';
comment on column activity.users.day is 'Day (UTC) on which the entries were appended to the log here.';
comment on column activity.users.room is 'roomserver.rooms.nid.';
comment on column activity.users.messages is 'Messages sent, edits aside; those redacted later included.';
comment on column activity.users.edits is 'Edits of messages.';
comment on column activity.users.reactions is 'Reactions.';
comment on column activity.users.changes is 'State events: memberships, names, settings.';

create table activity.rooms (
    room bigint not null,
    day date not null,
    messages integer not null,
    edits integer not null,
    reactions integer not null,
    changes integer not null,
    senders integer not null,
    primary key (room, day)
) with (fillfactor = 80);
comment on table activity.rooms is 'What happened in a room on a day: the sum of activity.users.';
comment on column activity.rooms.room is 'roomserver.rooms.nid.';
comment on column activity.rooms.day is 'Day (UTC).';
comment on column activity.rooms.messages is 'Messages sent.';
comment on column activity.rooms.edits is 'Edits of messages.';
comment on column activity.rooms.reactions is 'Reactions.';
comment on column activity.rooms.changes is 'State events.';
comment on column activity.rooms.senders is 'Users who did any of it.';

create table activity.days (
    day date primary key,
    messages bigint not null,
    edits bigint not null,
    reactions bigint not null,
    changes bigint not null,
    senders integer not null,
    rooms integer not null
) with (fillfactor = 50);
comment on table activity.days is 'What happened on a day on the whole server: the sum of activity.rooms.';
comment on column activity.days.day is 'Day (UTC).';
comment on column activity.days.messages is 'Messages sent.';
comment on column activity.days.edits is 'Edits of messages.';
comment on column activity.days.reactions is 'Reactions.';
comment on column activity.days.changes is 'State events.';
comment on column activity.days.senders is 'Users who did any of it.';
comment on column activity.days.rooms is 'Rooms in which any of it was done.';

-- Counts outputs that were not counted yet, some thousand at a time: off the way that messages take, and in one transaction with the
-- position up to which they are counted. Two at once: the second finds nothing to do.
create function activity.fold_v1(most integer default 2000) returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    at record;
    counted bigint;
    folded integer := 0;
begin
    insert into eventlog.positions (component, shard, position, lsn, epoch)
    select 'activity', p.shard, 0, '0/0', p.epoch from eventlog.positions p
    where p.component = 'roomserver'
      and not exists (select from eventlog.positions a where a.component = 'activity' and a.shard = p.shard)
    on conflict do nothing;

    for at in
        select a.shard, a.position, least(p.position, a.position + most) as upto
        from eventlog.positions a
        join eventlog.positions p on p.component = 'roomserver' and p.shard = a.shard
        where a.component = 'activity' and p.position > a.position
        order by a.shard
        for update of a skip locked
    loop
        with entries as materialized (
            select o.kind, o.entry, o.room
            from eventlog.outputs o
            where o.shard = at.shard and o.position > at.position and o.position <= at.upto and o.kind in ('s', 'm')
              and o.verdict = 'a' and o.room is not null
        ),
        bounds as (
            select min(entry) as low, max(entry) as high from entries
        ),
        done as (
            select e.sender, (eventlog.entry_time(n.entry) at time zone 'utc')::date as day, n.room, n.entry,
                   n.kind = 's' as change,
                   e.type = 'm.reaction' as reaction,
                   e.type in ('m.room.message', 'm.room.encrypted', 'm.sticker') as message,
                   position('"rel_type":"m.replace"' in e.json) > 0 as edit
            from entries n
            join eventlog.events e on e.id = n.entry and e.kind = n.kind and e.kind in ('s', 'm')
                and e.id >= (select b.low from bounds b) and e.id <= (select b.high from bounds b)
        ),
        counts as (
            select d.sender, d.day, d.room,
                   count(*) filter (where not d.change and d.message and not d.edit) as messages,
                   count(*) filter (where not d.change and d.message and d.edit) as edits,
                   count(*) filter (where not d.change and d.reaction) as reactions,
                   count(*) filter (where d.change) as changes
            from done d
            where d.change or d.message or d.reaction
            group by d.sender, d.day, d.room
        ),
        -- Who is counted the first time that day, in the room and on the server: looked at before the rows below are there.
        marked as materialized (
            select c.sender, c.day, c.room, c.messages, c.edits, c.reactions, c.changes,
                   not exists (select from activity.users u where u.sender = c.sender and u.day = c.day and u.room = c.room) as in_room,
                   not exists (select from activity.users u where u.sender = c.sender and u.day = c.day) as on_server,
                   not exists (select from activity.rooms r where r.room = c.room and r.day = c.day) as new_room
            from counts c
        ),
        by_user as (
            insert into activity.users as u (sender, day, room, messages, edits, reactions, changes)
            select m.sender, m.day, m.room, m.messages, m.edits, m.reactions, m.changes
            from marked m
            order by m.sender, m.day, m.room
            on conflict (sender, day, room) do update
            set messages = u.messages + excluded.messages, edits = u.edits + excluded.edits,
                reactions = u.reactions + excluded.reactions, changes = u.changes + excluded.changes
        ),
        by_room as (
            insert into activity.rooms as r (room, day, messages, edits, reactions, changes, senders)
            select m.room, m.day, sum(m.messages), sum(m.edits), sum(m.reactions), sum(m.changes), count(*) filter (where m.in_room)
            from marked m
            group by m.room, m.day
            order by m.room, m.day
            on conflict (room, day) do update
            set messages = r.messages + excluded.messages, edits = r.edits + excluded.edits,
                reactions = r.reactions + excluded.reactions, changes = r.changes + excluded.changes,
                senders = r.senders + excluded.senders
        ),
        by_day as (
            insert into activity.days as d (day, messages, edits, reactions, changes, senders, rooms)
            select m.day, sum(m.messages), sum(m.edits), sum(m.reactions), sum(m.changes),
                   count(distinct m.sender) filter (where m.on_server), count(distinct m.room) filter (where m.new_room)
            from marked m
            group by m.day
            order by m.day
            on conflict (day) do update
            set messages = d.messages + excluded.messages, edits = d.edits + excluded.edits,
                reactions = d.reactions + excluded.reactions, changes = d.changes + excluded.changes,
                senders = d.senders + excluded.senders, rooms = d.rooms + excluded.rooms
        )
        select count(*) into counted from marked;
        update eventlog.positions a
        set position = at.upto, moved_at = now()
        where a.component = 'activity' and a.shard = at.shard;
        folded := folded + (at.upto - at.position)::integer;
    end loop;
    return folded;
end
$$;
comment on function activity.fold_v1(integer) is 'Counts at most so many outputs of each shard into the tables of schema activity; returns how many. Called by maintenance until it returns 0.';

-- A room that is purged takes its counts with it.
create function activity.forget_room() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    with gone as (
        delete from activity.users u where u.room = old.nid
        returning u.sender, u.day, u.messages, u.edits, u.reactions, u.changes
    ),
    gone_rooms as (
        delete from activity.rooms r where r.room = old.nid
    ),
    less as (
        select g.day, sum(g.messages) as messages, sum(g.edits) as edits, sum(g.reactions) as reactions, sum(g.changes) as changes,
               count(*) filter (where not exists (
                   select from activity.users u where u.sender = g.sender and u.day = g.day and u.room <> old.nid)) as senders
        from gone g
        group by g.day
    )
    update activity.days d
    set messages = d.messages - l.messages, edits = d.edits - l.edits, reactions = d.reactions - l.reactions,
        changes = d.changes - l.changes, senders = d.senders - l.senders, rooms = d.rooms - 1
    from less l
    where d.day = l.day;
    return null;
end
$$;
comment on function activity.forget_room() is 'Takes the counts of a purged room away.';

create trigger forget_activity after delete on roomserver.rooms
for each row execute function activity.forget_room();

-- Room ids as people know them, made into the numbers that the tables join by. A room that is not known here is not an empty one.
create or replace view history.room_numbers as
select r.room_id, r.nid as room
from roomserver.rooms r;
comment on view history.room_numbers is 'Which number stands for which room in this schema.';
comment on column history.room_numbers.room_id is 'Matrix room id.';
comment on column history.room_numbers.room is 'The room''s number: history.rooms.room.';

-- With the rights of whoever asks, for the view has its owner's: a page asks this once per look-up, and changing rights costs more.
create or replace function history.room_number(of_room text) returns bigint
language plpgsql stable parallel safe
as $$
declare
    found bigint := (select r.room from history.room_numbers r where r.room_id = of_room);
begin
    if found is null then
        raise exception 'the room % is not known here', coalesce(of_room, '(null)') using errcode = 'P0002';
    end if;
    return found;
end
$$;
comment on function history.room_number(text) is 'The number that stands for a room inside the database. Fails with P0002 for a room that is not known here.';

-- Positions and moments. An output has no time of its own: what it judges was appended at a moment, which the entry's id holds.
-- A state change mostly takes effect with the output of the very event it is due to; one by a resolution, with that of the event
-- that joined the branches. What a room held when this server first knew it had come about before, nobody here knows when.
create or replace function history.change_time(of_shard smallint, at_position bigint, due_to bigint) returns timestamptz
language sql stable parallel safe security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
return case
    when exists (select from eventlog.outputs o where o.entry = due_to and o.kind = 's' and o.position = at_position)
        then eventlog.entry_time(due_to)
    else (
        select case when exists (select from roomserver.state s
                                 where s.room = o.room and s.line = 0 and s.valid_from < at_position)
                   then eventlog.entry_time(o.entry) end
        from eventlog.outputs o
        where o.shard = of_shard and o.position = at_position and o.kind in ('s', 'm')
        limit 1)
    end;
comment on function history.change_time(smallint, bigint, bigint) is 'When a state change at a position of a shard took effect; due_to is the entry it is mostly due to, or null. Null where that is unknown: before this server knew the room.';

create or replace function history.sent_time(document text) returns timestamptz
language sql immutable parallel safe
return to_timestamp(
    greatest(-62135596800000, least(253402300799999, history.json_text(document, 'origin_server_ts')::numeric)) / 1000);
comment on function history.sent_time(text) is 'When an event was sent, as its sender''s server says; kept within the years 1 to 9999.';

-- Where a room's timeline was at a moment. What was appended after the moment had no effect then, nor had what was judged after it.
-- Entries are judged almost in the order of their ids: of the first few hundred of the shard after a moment, one was judged first.
create or replace function history.place_at(of_room text, moment timestamptz) returns bigint
language plpgsql stable parallel safe security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
as $$
declare
    known roomserver.rooms;
    edge bigint;
    judged_next bigint;
    later bigint;
begin
    select r.nid, r.room_id, r.room_version, r.shard, r.created_at into known from roomserver.rooms r where r.room_id = of_room;
    if known.nid is null then
        raise exception 'the room % is not known here', coalesce(of_room, '(null)') using errcode = 'P0002';
    end if;
    if moment is null or moment > now() then
        raise exception 'what % was at % is not known yet', of_room, coalesce(moment::text, '(null)') using errcode = 'P0002';
    end if;
    select min(o.position) into judged_next
    from (
        select p.position
        from eventlog.outputs p
        where p.kind in ('s', 'm') and p.shard = known.shard
          and p.entry >= eventlog.id_at(moment + interval '1 millisecond')
        order by p.entry
        limit 300
    ) o;
    if judged_next is not null then
        select o.timeline into later
        from eventlog.outputs o
        where o.room = known.nid and o.kind in ('s', 'm') and o.timeline >= judged_next
          and o.entry >= eventlog.id_at(moment + interval '1 millisecond')
        order by o.timeline
        limit 1;
    end if;
    select min(s.valid_from) into edge from roomserver.state s where s.room = known.nid and s.line = 0;
    if edge is null or later <= edge then
        raise exception 'what % was at % is unknown: the room is known here since %', of_room, moment,
            (select eventlog.entry_time(o.entry) from eventlog.outputs o
             where o.shard = known.shard and o.position = edge and o.kind in ('s', 'm') limit 1) using errcode = 'P0002';
    end if;
    return coalesce(later - 1, 9223372036854775806);
end
$$;
comment on function history.place_at(text, timestamptz) is 'The place in a room''s timeline up to which everything had happened at a moment: messages_of(room) where place > place_at(room, now() - interval ''7 days''). Fails with P0002 where that is unknown: before this server knew the room, in the future.';

-- The same, where the room's state is known as well: while others were in it and nobody of this server was, it is not.
create or replace function history.known_place(of_room text, moment timestamptz) returns bigint
language plpgsql stable parallel safe security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
as $$
declare
    upto bigint := history.place_at(of_room, moment);
    nid bigint := history.room_number(of_room);
    server text := (select i.server_name from eventlog.installation i);
begin
    if exists (select from roomserver.state s
               where s.room = nid and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
                 and s.valid_from <= upto and s.valid_to > upto)
       and not exists (select from roomserver.state s
                       where s.room = nid and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
                         and s.valid_from <= upto and s.valid_to > upto
                         and substr(s.state_key, strpos(s.state_key, ':') + 1) = server)
    then
        raise exception 'the state of % at % is unknown: nobody of this server was in the room then', of_room, moment
            using errcode = 'P0002';
    end if;
    return upto;
end
$$;
comment on function history.known_place(text, timestamptz) is 'place_at, and fails with P0002 also where the room''s state is unknown: while others were in it and nobody of this server was.';

-- What became of an event's words. Apart from the views, so that a page looks into the log only for messages that were edited or
-- redacted: strict, for a view that has nothing to ask passes null.
-- Specification, "Validity of replacement events": same room, same sender, same type, no state key, the original is no edit itself,
-- m.new_content is there; the most recent by origin_server_ts, then by the greatest event id.
create or replace function history.latest_edit(of_event text, in_room bigint, by_sender text, of_type text)
returns table (event_id text, msgtype text, body text, edited_at timestamptz)
language sql stable strict parallel safe rows 1 security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
begin atomic
    select n.event_id,
           case when n.type <> 'm.room.encrypted' then history.json_text(n.json, 'content', 'm.new_content', 'msgtype') end,
           case when n.type <> 'm.room.encrypted' then history.json_text(n.json, 'content', 'm.new_content', 'body') end,
           history.sent_time(n.json)
    from roomserver.relations l
    join eventlog.events n on n.id = l.entry and n.kind = 'm'
    where l.target = of_event and l.rel_type = 'm.replace' and l.room = in_room
      and n.sender = by_sender and n.type = of_type
      and (n.type = 'm.room.encrypted' or json_typeof(history.safe_json(n.json) #> '{content,m.new_content}') = 'object')
      and not exists (select from roomserver.redactions x where x.target = of_event)
      and not exists (select from roomserver.redactions y where y.target = n.event_id)
    order by history.sent_time(n.json) desc, n.event_id desc
    limit 1;
end;
comment on function history.latest_edit(text, bigint, text, text) is 'The latest valid edit of a message that stands: by the same sender, of the same type, in the same room.';

create or replace function history.redaction_of(of_event text)
returns table (event_id text, sender text, reason text, redacted_at timestamptz)
language sql stable parallel safe rows 1 security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
begin atomic
    select x.redaction, e.sender,
           case when not exists (select from roomserver.redactions y where y.target = x.redaction)
               then history.json_text(e.json, 'content', 'reason') end,
           eventlog.entry_time(e.id)
    from roomserver.redactions x
    join eventlog.events e on e.id = x.entry and e.kind in ('s', 'm')
    where x.target = of_event;
end;
comment on function history.redaction_of(text) is 'The redaction that took an event''s words away, with the reason given unless that was redacted too.';

-- Every column is looked up by itself: whoever sorts by one and asks for ten rows looks up the others of ten rooms.
create or replace view history.rooms as
select r.room_id,
       r.room_version,
       (select case when x.target is null then history.json_text(e.json, 'content', 'name') end
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = s.event_id
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.name' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as name,
       (select case when x.target is null then history.json_text(e.json, 'content', 'topic') end
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = s.event_id
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.topic' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as topic,
       (select case when x.target is null then history.json_text(e.json, 'content', 'alias') end
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = s.event_id
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.canonical_alias' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as canonical_alias,
       coalesce((
           select history.json_text(e.json, 'content', 'join_rule')
           from roomserver.state s
           join eventlog.events e on e.id = s.entry and e.kind = 's'
           where s.room = r.nid and s.line = 0 and s.type = 'm.room.join_rules' and s.state_key = ''
             and s.valid_to = 9223372036854775807), 'invite') as join_rule,
       coalesce((
           select history.json_text(e.json, 'content', 'history_visibility')
           from roomserver.state s
           join eventlog.events e on e.id = s.entry and e.kind = 's'
           where s.room = r.nid and s.line = 0 and s.type = 'm.room.history_visibility' and s.state_key = ''
             and s.valid_to = 9223372036854775807), 'shared') as history_visibility,
       -- Not exists (…): the planner would rather read all that is encrypted once.
       coalesce((
           select true
           from roomserver.state s
           where s.room = r.nid and s.line = 0 and s.type = 'm.room.encryption' and s.state_key = ''
             and s.valid_to = 9223372036854775807), false) as encrypted,
       (select e.sender
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.create' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as creator,
       (select history.sent_time(e.json)
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.create' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as created_at,
       r.created_at as known_since,
       h.joined as joined_members,
       h.invited as invited_members,
       r.nid as room
from roomserver.rooms r
join roomserver.heads h on h.room = r.nid;
comment on view history.rooms is 'Every room known here as it is now.';
comment on column history.rooms.room_id is 'Matrix room id.';
comment on column history.rooms.room_version is 'Room version.';
comment on column history.rooms.name is 'Name; null if it has none, or the name was redacted.';
comment on column history.rooms.topic is 'Topic; null if it has none, or the topic was redacted.';
comment on column history.rooms.canonical_alias is 'Main alias; null if it has none.';
comment on column history.rooms.join_rule is 'Who may join: public, invite, knock, restricted, knock_restricted, private.';
comment on column history.rooms.history_visibility is 'Who may read what is said now: world_readable, shared, invited, joined.';
comment on column history.rooms.encrypted is 'Whether messages are to be encrypted.';
comment on column history.rooms.creator is 'Who made it.';
comment on column history.rooms.created_at is 'When it was made, as its creator''s server says.';
comment on column history.rooms.known_since is 'When this server first knew it.';
comment on column history.rooms.joined_members is 'Number of members.';
comment on column history.rooms.invited_members is 'Number of people invited.';
comment on column history.rooms.room is 'The number that stands for it in this schema.';

-- Messages as people see them: the latest valid edit in the place of what was sent, redacted ones without their words.
create or replace view history.messages as
select e.event_id,
       r.room_id,
       e.sender,
       history.sent_time(e.json) as sent_at,
       eventlog.entry_time(e.id) as received_at,
       e.type,
       case when x.target is not null or e.type = 'm.room.encrypted' then null
           when edit.event_id is not null then edit.msgtype
           else history.json_text(e.json, 'content', 'msgtype') end as msgtype,
       case when x.target is not null or e.type = 'm.room.encrypted' then null
           when edit.event_id is not null then edit.body
           else history.json_text(e.json, 'content', 'body') end as body,
       e.type = 'm.room.encrypted' as encrypted,
       edit.event_id collate "C" as edit_event_id,
       edit.edited_at,
       x.target is not null as redacted,
       case when x.target is not null then (select n.sender from history.redaction_of(x.target) n) end collate "C" as redacted_by,
       case when x.target is not null then (select n.reason from history.redaction_of(x.target) n) end as redaction_reason,
       case when x.target is null and history.json_text(e.json, 'content', 'm.relates_to', 'rel_type') = 'm.thread'
           then history.json_text(e.json, 'content', 'm.relates_to', 'event_id') end as thread,
       case when x.target is null
           then history.json_text(e.json, 'content', 'm.relates_to', 'm.in_reply_to', 'event_id') end as in_reply_to,
       o.timeline as place,
       o.room
from eventlog.outputs o
join eventlog.events e on e.id = o.entry and e.kind = 'm'
join roomserver.rooms r on r.nid = o.room
left join roomserver.redactions x on x.target = e.event_id
left join lateral history.latest_edit(
    case when exists (select from roomserver.relations l where l.target = e.event_id and l.rel_type = 'm.replace') then e.event_id end,
    o.room, e.sender, e.type) edit on true
where o.kind = 'm' and o.verdict = 'a' and o.timeline is not null
  and e.type in ('m.room.message', 'm.room.encrypted', 'm.sticker')
  and (position('"m.relates_to":' in e.json) = 0
       or history.json_text(e.json, 'content', 'm.relates_to', 'rel_type') is distinct from 'm.replace');
comment on view history.messages is 'Every message, edits and redactions applied. For one room, history.messages_of(room_id) reads a page without looking at the rest.';
comment on column history.messages.event_id is 'Event id.';
comment on column history.messages.room_id is 'Room it was said in.';
comment on column history.messages.sender is 'Who said it.';
comment on column history.messages.sent_at is 'When it was sent, as the sender''s server says.';
comment on column history.messages.received_at is 'When it was appended to the log here.';
comment on column history.messages.type is 'Event type: m.room.message, m.room.encrypted or m.sticker.';
comment on column history.messages.msgtype is 'Kind of message: m.text, m.image and so on; null if encrypted or redacted.';
comment on column history.messages.body is 'The words, of the latest edit; null if encrypted or redacted. NUL reads as U+10FFFF 0.';
comment on column history.messages.encrypted is 'End-to-end encrypted: this server does not know the words.';
comment on column history.messages.edit_event_id is 'Event id of the latest edit; null if there is none.';
comment on column history.messages.edited_at is 'When the latest edit was sent; null if there is none.';
comment on column history.messages.redacted is 'A redaction took the words away.';
comment on column history.messages.redacted_by is 'Who redacted it.';
comment on column history.messages.redaction_reason is 'The reason given for it; null if none was, or the redaction was redacted.';
comment on column history.messages.thread is 'Event id of the message that began the thread it is in; null if in none.';
comment on column history.messages.in_reply_to is 'Event id of the message it answers; null if none.';
comment on column history.messages.place is 'Order in the room''s timeline; negative for history that was fetched later.';
comment on column history.messages.room is 'The room''s number: history.rooms.room.';

-- Inlined by the planner, so that "order by place desc limit 50" reads fifty rows of an index and no more.
create or replace function history.messages_of(of_room text) returns setof history.messages
language sql stable parallel safe
begin atomic
    select m.event_id, m.room_id, m.sender, m.sent_at, m.received_at, m.type, m.msgtype, m.body, m.encrypted, m.edit_event_id,
           m.edited_at, m.redacted, m.redacted_by, m.redaction_reason, m.thread, m.in_reply_to, m.place, m.room
    from history.messages m
    where m.room = history.room_number(of_room);
end;
comment on function history.messages_of(text) is 'The messages of one room: select sent_at, sender, body from history.messages_of(''!room:server'') order by place desc limit 50.';

-- What messages said after each edit. Only valid edits, as for history.messages; a redacted one is told, without its words.
create or replace view history.edits as
select l.target as event_id,
       r.room_id,
       e.sender,
       l.event_id as edit_event_id,
       history.sent_time(e.json) as edited_at,
       eventlog.entry_time(e.id) as received_at,
       case when x.target is null and y.target is null and e.type <> 'm.room.encrypted'
           then history.json_text(e.json, 'content', 'm.new_content', 'msgtype') end as msgtype,
       case when x.target is null and y.target is null and e.type <> 'm.room.encrypted'
           then history.json_text(e.json, 'content', 'm.new_content', 'body') end as body,
       case when y.target is null and e.type <> 'm.room.encrypted' then history.json_text(t.json, 'content', 'body') end as original_body,
       e.type = 'm.room.encrypted' as encrypted,
       x.target is not null or y.target is not null as redacted,
       l.timeline as place,
       l.room
from roomserver.relations l
join roomserver.rooms r on r.nid = l.room
join eventlog.events e on e.id = l.entry and e.kind = 'm'
left join roomserver.redactions x on x.target = l.event_id
left join roomserver.redactions y on y.target = l.target
left join eventlog.event_keys i on i.key = eventlog.event_key(l.target)
left join eventlog.events t on t.id = i.id and t.kind = 'm' and t.event_id = l.target
left join eventlog.outputs o on o.entry = i.id and o.kind = 'm'
where l.rel_type = 'm.replace'
  -- Said so that the planner does not take edits for rare: almost all are valid, and a page is to be read in order.
  and coalesce(e.sender = t.sender and e.type = t.type and e.room_id = t.room_id and o.verdict = 'a'
               and history.json_text(t.json, 'content', 'm.relates_to', 'rel_type') is distinct from 'm.replace'
               and (e.type = 'm.room.encrypted'
                    or json_typeof(history.safe_json(e.json) #> '{content,m.new_content}') = 'object'), false);
comment on view history.edits is 'Every edit of a message. For one room, history.edits_of(room_id); for one message, where event_id = ….';
comment on column history.edits.event_id is 'The message that was edited.';
comment on column history.edits.room_id is 'Room it was said in.';
comment on column history.edits.sender is 'Who said it, and edited it: nobody else can.';
comment on column history.edits.edit_event_id is 'Event id of the edit.';
comment on column history.edits.edited_at is 'When it was edited, as the sender''s server says.';
comment on column history.edits.received_at is 'When the edit was appended to the log here.';
comment on column history.edits.msgtype is 'Kind of message after it; null if encrypted or redacted.';
comment on column history.edits.body is 'The words after it; null if encrypted or redacted.';
comment on column history.edits.original_body is 'The words before any edit; null if encrypted or redacted.';
comment on column history.edits.encrypted is 'End-to-end encrypted: this server does not know the words.';
comment on column history.edits.redacted is 'A redaction took the words away: of the edit, or of the message.';
comment on column history.edits.place is 'Order in the room''s timeline; negative for history that was fetched later.';
comment on column history.edits.room is 'The room''s number: history.rooms.room.';

create or replace function history.edits_of(of_room text) returns setof history.edits
language sql stable parallel safe
begin atomic
    select m.event_id, m.room_id, m.sender, m.edit_event_id, m.edited_at, m.received_at, m.msgtype, m.body, m.original_body,
           m.encrypted, m.redacted, m.place, m.room
    from history.edits m
    where m.room = history.room_number(of_room);
end;
comment on function history.edits_of(text) is 'The edits in one room: order by place desc limit 50 reads fifty of them.';

-- Reactions that stand: one that was taken back, or whose message was, is no row.
create or replace view history.reactions as
select l.target as event_id,
       r.room_id,
       e.sender,
       history.json_text(e.json, 'content', 'm.relates_to', 'key') as key,
       history.sent_time(e.json) as reacted_at,
       eventlog.entry_time(e.id) as received_at,
       l.event_id as reaction_event_id,
       l.timeline as place,
       l.room
from roomserver.relations l
join roomserver.rooms r on r.nid = l.room
join eventlog.events e on e.id = l.entry and e.kind = 'm'
where l.rel_type = 'm.annotation'
  -- Said so that the planner does not take what stands for rare: a page is to be read in order.
  and coalesce(e.type = 'm.reaction', false)
  and coalesce((select false from roomserver.redactions x where x.target = l.event_id), true)
  and coalesce((select false from roomserver.redactions x where x.target = l.target), true);
comment on view history.reactions is 'Every reaction that stands. For one room, history.reactions_of(room_id); to one message, where event_id = ….';
comment on column history.reactions.event_id is 'The message reacted to.';
comment on column history.reactions.room_id is 'Room it was in.';
comment on column history.reactions.sender is 'Who reacted.';
comment on column history.reactions.key is 'With what: mostly an emoji.';
comment on column history.reactions.reacted_at is 'When, as the sender''s server says.';
comment on column history.reactions.received_at is 'When it was appended to the log here.';
comment on column history.reactions.reaction_event_id is 'Event id of the reaction.';
comment on column history.reactions.place is 'Order in the room''s timeline; negative for history that was fetched later.';
comment on column history.reactions.room is 'The room''s number: history.rooms.room.';

create or replace function history.reactions_of(of_room text) returns setof history.reactions
language sql stable parallel safe
begin atomic
    select m.event_id, m.room_id, m.sender, m.key, m.reacted_at, m.received_at, m.reaction_event_id, m.place, m.room
    from history.reactions m
    where m.room = history.room_number(of_room);
end;
comment on function history.reactions_of(text) is 'The reactions in one room: order by place desc limit 50 reads fifty of them.';

-- Threads by the order in which their first replies came.
create or replace view history.threads as
select t.root as event_id,
       r.room_id,
       e.sender,
       history.sent_time(e.json) as sent_at,
       case when x.target is not null or e.type = 'm.room.encrypted' then null
           when edit.event_id is not null then edit.body
           else history.json_text(e.json, 'content', 'body') end as body,
       coalesce(e.type = 'm.room.encrypted', false) as encrypted,
       eventlog.entry_time(t.entry) as began_at,
       (select count(*)
        from roomserver.relations l
        where l.target = t.root and l.rel_type = 'm.thread' and l.room = t.room
          and not exists (select from roomserver.redactions y where y.target = l.event_id)) as replies,
       eventlog.entry_time(last.entry) as last_reply_at,
       last.event_id as last_reply,
       t.begun as place,
       t.room
from roomserver.threads t
join roomserver.rooms r on r.nid = t.room
left join eventlog.event_keys i on i.key = eventlog.event_key(t.root)
left join eventlog.outputs o on o.entry = i.id and o.kind in ('s', 'm') and o.verdict = 'a'
left join eventlog.events e on e.id = o.entry and e.kind = o.kind and e.kind in ('s', 'm') and e.event_id = t.root
left join roomserver.redactions x on x.target = t.root
left join lateral history.latest_edit(
    case when exists (select from roomserver.relations l where l.target = t.root and l.rel_type = 'm.replace') then t.root end,
    t.room, e.sender, e.type) edit on true
left join lateral (
    select l.entry, l.event_id
    from roomserver.relations l
    where l.target = t.root and l.rel_type = 'm.thread' and l.room = t.room
      and coalesce((select false from roomserver.redactions y where y.target = l.event_id), true)
    order by l.timeline desc
    limit 1
) last on true;
comment on view history.threads is 'Every thread. For one room, history.threads_of(room_id); what was said in one, history.messages where thread = ….';
comment on column history.threads.event_id is 'The message that began it.';
comment on column history.threads.room_id is 'Room it is in.';
comment on column history.threads.sender is 'Who said that message; null if it is not known here.';
comment on column history.threads.sent_at is 'When it was sent, as the sender''s server says; null if it is not known here.';
comment on column history.threads.body is 'Its words, of the latest edit; null if encrypted, redacted or not known here.';
comment on column history.threads.encrypted is 'It is end-to-end encrypted: this server does not know the words.';
comment on column history.threads.began_at is 'When the first reply that is known here was appended to the log.';
comment on column history.threads.replies is 'Number of replies that stand.';
comment on column history.threads.last_reply_at is 'When the last of them was appended to the log here.';
comment on column history.threads.last_reply is 'Event id of the last of them.';
comment on column history.threads.place is 'Order of the first reply in the room''s timeline.';
comment on column history.threads.room is 'The room''s number: history.rooms.room.';

create or replace function history.threads_of(of_room text) returns setof history.threads
language sql stable parallel safe
begin atomic
    select m.event_id, m.room_id, m.sender, m.sent_at, m.body, m.encrypted, m.began_at, m.replies, m.last_reply_at, m.last_reply,
           m.place, m.room
    from history.threads m
    where m.room = history.room_number(of_room);
end;
comment on function history.threads_of(text) is 'The threads of one room: order by place desc limit 50 reads the fifty that began last.';

create or replace view history.thread_replies as
select l.target as event_id,
       (select r.room_id from roomserver.rooms r where r.nid = l.room) as room_id,
       l.event_id as reply,
       l.timeline as place,
       l.room
from roomserver.relations l
where l.rel_type = 'm.thread';
comment on view history.thread_replies is 'Which messages are in which thread, also redacted ones: history.replies_in(event_id) gives their words.';
comment on column history.thread_replies.event_id is 'The message that began the thread.';
comment on column history.thread_replies.room_id is 'Room it is in.';
comment on column history.thread_replies.reply is 'Event id of the reply.';
comment on column history.thread_replies.place is 'The reply''s order in the room''s timeline.';
comment on column history.thread_replies.room is 'The room''s number: history.rooms.room.';

create or replace function history.replies_in(thread_root text) returns setof history.messages
language sql stable parallel safe
begin atomic
    select m.event_id, m.room_id, m.sender, m.sent_at, m.received_at, m.type, m.msgtype, m.body, m.encrypted, m.edit_event_id,
           m.edited_at, m.redacted, m.redacted_by, m.redaction_reason, m.thread, m.in_reply_to, m.place, m.room
    from history.thread_replies t
    join history.messages m on m.room = t.room and m.place = t.place
    where t.event_id = thread_root;
end;
comment on function history.replies_in(text) is 'What was said in the thread that a message began: order by place limit 50.';

-- What stood where, and nothing else: for looking at spans without looking at events.
create or replace view history.state_spans as
select s.room, s.line, s.type, s.state_key, s.event_id, s.valid_from as place, s.valid_to as until_place
from roomserver.state s;
comment on view history.state_spans is 'Which event stood under which key of a room''s state, from which place of the timeline to which. For people there is history.state_changes.';
comment on column history.state_spans.room is 'The room''s number: history.rooms.room.';
comment on column history.state_spans.line is '0 for the room''s state; others belong to events that were off its main line.';
comment on column history.state_spans.type is 'Event type.';
comment on column history.state_spans.state_key is 'State key.';
comment on column history.state_spans.event_id is 'The state event; null where a line says that there is none.';
comment on column history.state_spans.place is 'Place in the room''s timeline from which it stood.';
comment on column history.state_spans.until_place is 'Place from which something else stood; 9223372036854775807 while it stands.';

create or replace view history.resolutions as
select x.room, x.position as place, x.purpose, x.algorithm, x.resolved_at, history.safe_json(x.inputs)::jsonb as inputs,
       history.safe_json(x.outcome)::jsonb as outcome
from roomserver.resolutions x;
comment on view history.resolutions is 'Every state resolution that had a conflict to decide. history.why_state picks those that decided on one key.';
comment on column history.resolutions.room is 'The room''s number: history.rooms.room.';
comment on column history.resolutions.place is 'Place in the room''s timeline of the event that caused it.';
comment on column history.resolutions.purpose is 'before: for the state before that event; current: for the room''s state after it.';
comment on column history.resolutions.algorithm is 'State resolution algorithm: 1, 2 or 2.1.';
comment on column history.resolutions.resolved_at is 'When.';
comment on column history.resolutions.inputs is 'The branches, and per conflicted key the candidates and the winner.';
comment on column history.resolutions.outcome is 'The order in which events were tried, and why events were refused.';

create or replace view history.state_changes as
select r.room_id,
       s.type,
       s.state_key,
       e.sender,
       history.change_time(r.shard, s.valid_from, s.entry) as began_at,
       case when s.valid_to < 9223372036854775807 then history.change_time(r.shard, s.valid_to, (
           select f.entry
           from roomserver.state f
           where f.room = s.room and f.type = s.type and f.state_key = s.state_key and f.line = 0 and f.valid_to > s.valid_to
           order by f.valid_to
           limit 1)) end as ended_at,
       case when x.target is null then history.json_text(e.json, 'content')::jsonb
           else history.redacted_content(s.type, history.json_text(e.json, 'content')::jsonb, r.room_version) end as content,
       x.target is not null as redacted,
       s.event_id,
       s.valid_from as place,
       s.valid_to as until_place,
       s.room
from roomserver.rooms r
join roomserver.state s on s.room = r.nid and s.line = 0
join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = s.event_id;
comment on view history.state_changes is 'Every piece of every room''s state, from when to when it stood. For one room, history.state_changes_of(room_id).';
comment on column history.state_changes.room_id is 'Matrix room id.';
comment on column history.state_changes.type is 'Event type: m.room.power_levels, m.room.topic and so on.';
comment on column history.state_changes.state_key is 'State key: of a membership, whose; mostly empty otherwise.';
comment on column history.state_changes.sender is 'Who made the change.';
comment on column history.state_changes.began_at is 'From when it stood; null if that was before this server knew the room.';
comment on column history.state_changes.ended_at is 'Until when; null while it stands.';
comment on column history.state_changes.content is 'The content; of a redacted event what redaction leaves.';
comment on column history.state_changes.redacted is 'A redaction took part of the content away.';
comment on column history.state_changes.event_id is 'The state event.';
comment on column history.state_changes.place is 'Place in the room''s timeline from which it stood.';
comment on column history.state_changes.until_place is 'Place from which something else stood; 9223372036854775807 while it stands.';
comment on column history.state_changes.room is 'The room''s number: history.rooms.room.';

create or replace function history.state_changes_of(of_room text) returns setof history.state_changes
language sql stable parallel safe
begin atomic
    select m.room_id, m.type, m.state_key, m.sender, m.began_at, m.ended_at, m.content, m.redacted, m.event_id, m.place,
           m.until_place, m.room
    from history.state_changes m
    where m.room = history.room_number(of_room);
end;
comment on function history.state_changes_of(text) is 'The state changes of one room: where type = ''m.room.power_levels'' order by place desc limit 50.';

create or replace view history.memberships as
select r.room_id,
       s.state_key as user_id,
       case s.membership when 'j' then 'join' when 'i' then 'invite' when 'l' then 'leave' when 'b' then 'ban' when 'k' then 'knock'
           end as membership,
       history.change_time(r.shard, s.valid_from, s.entry) as began_at,
       case when s.valid_to < 9223372036854775807 then history.change_time(r.shard, s.valid_to, (
           select f.entry
           from roomserver.state f
           where f.room = s.room and f.type = 'm.room.member' and f.state_key = s.state_key and f.line = 0
             and f.valid_to > s.valid_to
           order by f.valid_to
           limit 1)) end as ended_at,
       e.sender as changed_by,
       case when x.target is null then history.json_text(e.json, 'content', 'reason') end as reason,
       case when x.target is null then history.json_text(e.json, 'content', 'displayname') end as display_name,
       s.event_id,
       s.room,
       s.valid_from as place,
       s.valid_to as until_place
from roomserver.rooms r
join roomserver.state s on s.room = r.nid and s.line = 0 and s.type = 'm.room.member'
join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = s.event_id;
comment on view history.memberships is 'Who was what in which room, from when to when: a row per membership event that was part of the room''s state. For one room, history.memberships_of(room_id); for one user, history.memberships_of_user(user_id).';
comment on column history.memberships.room_id is 'Matrix room id.';
comment on column history.memberships.user_id is 'The member.';
comment on column history.memberships.membership is 'join, invite, leave, ban or knock.';
comment on column history.memberships.began_at is 'From when; null if that was before this server knew the room.';
comment on column history.memberships.ended_at is 'Until when; null while it stands.';
comment on column history.memberships.changed_by is 'Who made the change: of another than the member, an invitation, a kick, a ban.';
comment on column history.memberships.reason is 'The reason given; null if none was, or it was redacted.';
comment on column history.memberships.display_name is 'The name shown in the room meanwhile.';
comment on column history.memberships.event_id is 'The membership event.';
comment on column history.memberships.room is 'The room''s number: history.rooms.room.';
comment on column history.memberships.place is 'Place in the room''s timeline from which it stood.';
comment on column history.memberships.until_place is 'Place from which another stood; 9223372036854775807 while it stands.';

create or replace function history.memberships_of(of_room text) returns setof history.memberships
language sql stable parallel safe
begin atomic
    select m.room_id, m.user_id, m.membership, m.began_at, m.ended_at, m.changed_by, m.reason, m.display_name, m.event_id, m.room,
           m.place, m.until_place
    from history.memberships m
    where m.room = history.room_number(of_room);
end;
comment on function history.memberships_of(text) is 'The memberships of one room over time: order by place desc limit 50 reads the last fifty changes.';

-- Members as they are now: what tells which rooms a user's memberships are in.
create or replace view history.members as
select m.user_id,
       r.room_id,
       case m.membership when 'j' then 'join' when 'i' then 'invite' when 'l' then 'leave' when 'b' then 'ban' when 'k' then 'knock'
           end as membership,
       eventlog.entry_time(m.entry) as changed_at,
       m.sender as changed_by,
       m.position as place,
       m.room
from roomserver.memberships m
join roomserver.rooms r on r.nid = m.room;
comment on view history.members is 'Everyone who has or had to do with a room, with what they are there now.';
comment on column history.members.user_id is 'The member.';
comment on column history.members.room_id is 'Matrix room id.';
comment on column history.members.membership is 'join, invite, leave, ban or knock.';
comment on column history.members.changed_at is 'When the membership event was appended to the log here.';
comment on column history.members.changed_by is 'Who made the change: a leave of another than the member is a kick.';
comment on column history.members.place is 'Place in the room''s timeline from which it stands.';
comment on column history.members.room is 'The room''s number: history.rooms.room.';

create or replace function history.memberships_of_user(of_user text) returns setof history.memberships
language sql stable parallel safe
begin atomic
    select m.room_id, m.user_id, m.membership, m.began_at, m.ended_at, m.changed_by, m.reason, m.display_name, m.event_id, m.room,
           m.place, m.until_place
    from history.members n
    join history.memberships m on m.room = n.room and m.user_id = n.user_id
    where n.user_id = of_user;
end;
comment on function history.memberships_of_user(text) is 'Which rooms a user was in, invited to or thrown out of, over time.';

-- A room's state as of a moment. Never an empty answer where nothing is known: history.known_place fails then, and says so.
-- Inlined by the planner: a type and a state key that are asked for are looked up, and nothing else is.
create or replace function history.state_at(of_room text, moment timestamptz)
returns table (type text, state_key text, sender text, since timestamptz, content jsonb, redacted boolean, event_id text)
language sql stable parallel safe
begin atomic
    select s.type, s.state_key, s.sender, s.began_at, s.content, s.redacted, s.event_id
    from history.state_changes s
    where s.room = (select history.room_number(of_room))
      and s.place <= (select history.known_place(of_room, moment)) and s.until_place > (select history.known_place(of_room, moment));
end;
comment on function history.state_at(text, timestamptz) is 'The state of a room as it was at a moment, redactions applied: select type, state_key, content from history.state_at(''!room:server'', now() - interval ''7 days''). Fails with P0002 where the answer is unknown: before this server knew the room, while nobody of this server was in it, in the future. NUL in strings reads as U+10FFFF 0.';

-- Where a span of a room's timeline begins. What happened while others were in the room and nobody of this server was, nobody here
-- knows: a span with such a stretch has no answer.
create or replace function history.span_start(of_room text, since timestamptz, until timestamptz) returns bigint
language plpgsql stable parallel safe security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
as $$
declare
    low bigint := history.known_place(of_room, since);
    high bigint := history.known_place(of_room, until);
    nid bigint := history.room_number(of_room);
    server text := (select i.server_name from eventlog.installation i);
    gap record;
begin
    if low > high then
        raise exception 'the span from % to % ends before it begins', since, until using errcode = '22007';
    end if;
    -- Mostly somebody of this server was there all the time.
    if not exists (select from roomserver.state s
                   where s.room = nid and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
                     and s.valid_from <= low and s.valid_to > high
                     and substr(s.state_key, strpos(s.state_key, ':') + 1) = server)
    then
        with stays as (
            select s.valid_from, s.valid_to
            from roomserver.state s
            where s.room = nid and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
              and s.valid_from <= high and s.valid_to > low
              and substr(s.state_key, strpos(s.state_key, ':') + 1) = server
        ),
        reached as (
            select t.valid_from, max(t.valid_to) over (order by t.valid_from, t.valid_to rows unbounded preceding) as upto
            from stays t
        ),
        gaps as (
            select r.upto as begins, coalesce(lead(r.valid_from) over (order by r.valid_from, r.upto), high + 1) as ends from reached r
            union all
            select low, coalesce((select min(t.valid_from) from stays t), high + 1)
        )
        select g.begins, g.ends into gap
        from gaps g
        where g.ends > greatest(g.begins, low) and g.begins <= high
          and exists (select from roomserver.state s
                      where s.room = nid and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
                        and s.valid_from < least(g.ends, high) and s.valid_to > greatest(g.begins, low))
        limit 1;
        if found then
            raise exception 'what happened in % from % to % is unknown in part: nobody of this server was in the room all the time',
                of_room, since, until using errcode = 'P0002';
        end if;
    end if;
    return low;
end
$$;
comment on function history.span_start(text, timestamptz, timestamptz) is 'known_place of the first moment; fails with P0002 where any of what happened between the two is unknown.';

-- Changes of a room's state between two moments, the first excluded, the second included: what began, and what a
-- resolution took away with nothing in its place. The two in one order of places, which indexes give.
create or replace function history.state_between(of_room text, since timestamptz, until timestamptz)
returns table (changed_at timestamptz, type text, state_key text, sender text, content jsonb, redacted boolean, event_id text,
               content_before jsonb, event_id_before text, place bigint)
language sql stable parallel safe
begin atomic
    select coalesce(s.began_at, b.ended_at), coalesce(c.type, z.type), coalesce(c.state_key, z.state_key), s.sender, s.content,
           coalesce(s.redacted, false), s.event_id, b.content, b.event_id, c.place
    from (
        select a.room, a.line, 'state' as what, a.type, a.state_key, a.place from history.state_spans a
        union all
        select x.room, 0, x.purpose, null, null, x.place from history.resolutions x
    ) c
    left join history.state_spans z on c.what = 'current' and z.room = c.room and z.line = 0 and z.until_place = c.place
        and z.until_place < 9223372036854775807
        and coalesce((select n.place > z.until_place from history.state_spans n
                      where n.room = z.room and n.type = z.type and n.state_key = z.state_key and n.line = 0
                        and n.until_place > z.until_place
                      order by n.until_place limit 1), true)
    -- By the place alone, at which there is one change or a few: not by the key, which may have had thousands.
    left join history.state_changes s on s.room = c.room and s.place = c.place and s.type is not distinct from c.type
        and s.state_key is not distinct from c.state_key
    left join history.state_changes b on b.room = c.room and b.type = coalesce(c.type, z.type)
        and b.state_key = coalesce(c.state_key, z.state_key) and b.until_place = c.place
    where c.room = (select history.room_number(of_room)) and c.line = 0 and c.what in ('state', 'current')
      and c.place > (select history.span_start(of_room, since, until)) and c.place <= (select history.known_place(of_room, until))
      and (c.type is not null or z.type is not null);
end;
comment on function history.state_between(text, timestamptz, timestamptz) is 'What changed in a room''s state after one moment up to another, with what stood before: order by place. Fails with P0002 where any of it is unknown, as history.state_at does.';

-- Who could see an event, by the history visibility of the room and the memberships, both as before it.
-- Specification, client-server API, "Room History Visibility": the same rules as matrix/visibility.py; a test compares the two.
create or replace function history.sight_of(of_event text)
returns table (room bigint, place bigint, before bigint, line integer, base bigint, visibility text, visibility_after text, subject text,
               membership_after text, sender text, erased boolean)
language plpgsql stable parallel safe rows 1 security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
as $$
#variable_conflict use_column
declare
    seen record;
begin
    select o.room, o.timeline, o.position, o.line, o.verdict, e.type, e.state_key, e.sender, e.json,
           case when o.line = 0 then 0 else l.base_position end as base, r.room_id
    into seen
    from eventlog.event_keys i
    join eventlog.events e on e.id = i.id and e.kind in ('s', 'm') and e.event_id = of_event
    join eventlog.outputs o on o.entry = i.id and o.kind in ('s', 'm')
    join roomserver.rooms r on r.nid = o.room
    left join roomserver.lines l on l.room = o.room and l.line = o.line and o.line > 0
    where i.key = eventlog.event_key(of_event);
    if not found then
        raise exception 'the event % is not known here', coalesce(of_event, '(null)') using errcode = 'P0002';
    end if;
    if seen.verdict <> 'a' or seen.timeline is null or seen.base is null then
        raise exception 'who could see % is unknown: it is not part of the timeline of %', of_event, seen.room_id
            using errcode = 'P0002';
    end if;
    return query
    select seen.room, seen.timeline, seen.position - 1, seen.line, seen.base,
           coalesce((
               select case when v.value in ('world_readable', 'shared', 'invited', 'joined') then v.value end
               from (select history.json_text(e.json, 'content', 'history_visibility') as value
                     from history.value_before(seen.room, seen.line, seen.base, seen.position - 1, 'm.room.history_visibility', '') b
                     join eventlog.events e on e.id = b.entry and e.kind = 's') v), 'shared'),
           case when seen.type = 'm.room.history_visibility' and seen.state_key = '' then coalesce((
               select case when v.value in ('world_readable', 'shared', 'invited', 'joined') then v.value end
               from (select history.json_text(seen.json, 'content', 'history_visibility') as value) v), 'shared') end,
           case when seen.type = 'm.room.member' then seen.state_key end,
           case when seen.type = 'm.room.member' then history.json_text(seen.json, 'content', 'membership') end,
           seen.sender,
           exists (select from roomserver.erased x where x.user_id = seen.sender);
end
$$;
comment on function history.sight_of(text) is 'What decides who could see an event. Fails with P0002 for one that is not known here, or not part of a timeline.';

-- What stood under a state key after a position of a line: the line's own row, or the main line's where the line forked.
create or replace function history.value_before(of_room bigint, of_line integer, base bigint, after_position bigint, of_type text, of_key text)
returns table (entry bigint, membership "char")
language sql stable parallel safe rows 1 security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
begin atomic
    select v.entry, v.membership
    from (
        (select s.entry, s.membership, s.valid_from <= after_position as stands, 0 as turn
         from roomserver.state s
         where s.room = of_room and s.type = of_type and s.state_key = of_key and s.line = of_line and s.valid_to > after_position
         order by s.valid_to
         limit 1)
        union all
        (select s.entry, s.membership, s.valid_from <= base, 1
         from roomserver.state s
         where of_line > 0 and s.room = of_room and s.type = of_type and s.state_key = of_key and s.line = 0 and s.valid_to > base
         order by s.valid_to
         limit 1)
    ) v
    where v.stands
    order by v.turn
    limit 1;
end;
comment on function history.value_before(bigint, integer, bigint, bigint, text, text) is 'The entry that stood under a state key after a position of a state line that forked from the main one at base; no row where none did.';

create or replace function history.sight_by(of_room bigint, of_user text, of_line integer, base bigint, before bigint, place bigint, visibility text,
                                 visibility_after text, membership_after text)
returns table (membership text, how text)
language sql stable parallel safe rows 1 security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
begin atomic
    with known as (
        select coalesce((
                   select case v.membership when 'j' then 'join' when 'i' then 'invite' when 'b' then 'ban' when 'k' then 'knock'
                              else 'leave' end
                   from history.value_before(of_room, of_line, base, before, 'm.room.member', of_user) v), 'leave') as membership,
               exists (select from roomserver.state s
                       where s.room = of_room and s.type = 'm.room.member' and s.state_key = of_user and s.line = 0
                         and s.membership = 'j' and s.valid_to > place) as joined_since
    )
    select k.membership,
           (select case
                       when c.visibility = 'world_readable' then 'world_readable'
                       when c.membership = 'join' then 'member'
                       when c.visibility = 'shared' and k.joined_since then 'joined later'
                       when c.visibility = 'invited' and c.membership = 'invite' then 'invited' end
            from (values (1, visibility, k.membership), (2, visibility_after, k.membership), (3, visibility, membership_after))
                as c (turn, visibility, membership)
            where c.visibility = 'world_readable'
               or c.visibility is not null and c.membership = 'join'
               or c.visibility = 'shared' and k.joined_since
               or c.visibility = 'invited' and c.membership = 'invite'
            order by c.turn
            limit 1)
    from known k;
end;
comment on function history.sight_by(bigint, text, integer, bigint, bigint, bigint, text, text, text) is 'How a user could see an event, of which history.sight_of says what decides: member, joined later, invited, world_readable; null if not at all.';

create or replace function history.who_could_see(of_event text)
returns table (user_id text, how text, membership text, content_withheld boolean)
language sql stable parallel safe
begin atomic
    select null, 'world_readable', null, s.erased
    from history.sight_of(of_event) s
    where s.visibility = 'world_readable' or s.visibility_after = 'world_readable'
    union all
    select m.user_id, b.how, b.membership,
           s.erased and case when s.subject = m.user_id then coalesce(s.membership_after, b.membership) else b.membership end <> 'join'
    from history.sight_of(of_event) s
    join history.members m on m.room = s.room
    cross join lateral history.sight_by(s.room, m.user_id, s.line, s.base, s.before, s.place, s.visibility, s.visibility_after,
        case when s.subject = m.user_id then s.membership_after end) b
    where b.how is not null;
end;
comment on function history.who_could_see(text) is 'Who could see an event, and how: member at the time, joined later, invited, world_readable (the row without a user: anybody). content_withheld: its sender has asked to be erased, and who was not there then gets it redacted. Memberships of others while nobody of this server was in the room are not known. Fails with P0002 for an event that is not known here.';

-- Why a room's state is what it is: the event that stands, the resolutions that decided on its key, and its auth chain, nearest first.
create or replace function history.why_state(of_room text, of_type text, of_key text, moment timestamptz default now(), most integer default 100)
returns table (step integer, kind text, event_id text, type text, state_key text, sender text, received_at timestamptz, content jsonb,
               verdict text, detail jsonb)
language plpgsql stable parallel safe security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
as $$
#variable_conflict use_column
declare
    upto bigint := history.known_place(of_room, moment);
    known roomserver.rooms;
    standing roomserver.state;
    frontier text[] := '{}';
    chain text[] := '{}';
    levels integer[] := '{}';
    level integer := 0;
    told integer := 0;
    resolutions integer;
begin
    if most is null or most < 2 or most > 10000 then
        raise exception 'why_state tells 2 to 10000 rows, not %', coalesce(most::text, '(null)') using errcode = '22023';
    end if;
    select r.nid, r.room_id, r.room_version, r.shard, r.created_at into known from roomserver.rooms r where r.room_id = of_room;
    select s.room, s.line, s.type, s.state_key, s.valid_from, s.valid_to, s.entry, s.event_id, s.membership
    into standing
    from roomserver.state s
    where s.room = known.nid and s.type = of_type and s.state_key = of_key and s.line = 0 and s.valid_to > upto
    order by s.valid_to
    limit 1;
    if standing.event_id is null or standing.valid_from > upto then
        step := 0; kind := 'absent'; type := of_type; state_key := of_key; told := 1;
        return next;
        -- A resolution may have taken it away: the last one that decided on the key tells.
        select coalesce(max(s.valid_to), 0) into standing.valid_from
        from roomserver.state s
        where s.room = known.nid and s.type = of_type and s.state_key = of_key and s.line = 0 and s.valid_to <= upto;
    else
        frontier := array[standing.event_id];
    end if;

    return query
    select 0, 'resolution', e.event_id, e.type, e.state_key, e.sender, eventlog.entry_time(e.id), null::jsonb, null::text,
           jsonb_build_object(
               'purpose', d.purpose, 'algorithm', d.algorithm, 'branches', d.inputs -> 'branches', 'candidates', d.conflict -> 'candidates',
               'winner', d.conflict -> 'winner',
               'refused', (select jsonb_object_agg(f.key, f.value) from jsonb_each(d.outcome -> 'refused') f
                           where d.conflict -> 'candidates' ? f.key))
    from (
        select x.position, x.purpose, x.algorithm, x.inputs, x.outcome,
               (select c from jsonb_array_elements(x.inputs -> 'conflicts') c
                where c ->> 'type' = of_type and c ->> 'state_key' = of_key limit 1) as conflict
        from (select r.position, r.purpose, r.algorithm, history.safe_json(r.inputs)::jsonb as inputs,
                     history.safe_json(r.outcome)::jsonb as outcome
              from roomserver.resolutions r
              where r.room = known.nid and r.position >= standing.valid_from and r.position <= upto
              order by r.position
              limit 1000) x
    ) d
    left join eventlog.outputs o on o.shard = known.shard and o.position = d.position and o.kind in ('s', 'm')
    left join eventlog.events e on e.id = o.entry and e.kind in ('s', 'm')
    where d.conflict is not null
    order by d.position, d.purpose
    limit greatest(most / 2, 1);
    get diagnostics resolutions = row_count;
    told := told + resolutions;

    -- A level of the chain at a time; rules of the specification keep chains short, and most keeps them bounded. Auth events are state.
    while frontier <> '{}' and cardinality(chain) < most - told loop
        frontier := frontier[:most - told - cardinality(chain)];
        chain := chain || frontier;
        levels := levels || array_fill(level, array[cardinality(frontier)]);
        level := level + 1;
        frontier := array(
            select distinct case when json_typeof(a) = 'array' then a ->> 0 else a #>> '{}' end
            from unnest(frontier) f (event_id)
            join eventlog.event_keys i on i.key = eventlog.event_key(f.event_id)
            join eventlog.events e on e.id = i.id and e.kind = 's' and e.event_id = f.event_id
            cross join json_array_elements(case when json_typeof(history.safe_json(e.json) -> 'auth_events') = 'array'
                then history.safe_json(e.json) -> 'auth_events' else '[]' end) a);
        frontier := array(select f from unnest(frontier) f where f is not null and f <> all (chain));
    end loop;
    return query
    select c.level, case when e.id is null then 'unknown' when c.level = 0 then 'state' else 'auth' end, c.event_id, e.type, e.state_key,
           e.sender, eventlog.entry_time(e.id),
           case when x.target is null then history.json_text(e.json, 'content')::jsonb
               else history.redacted_content(e.type, history.json_text(e.json, 'content')::jsonb, known.room_version) end,
           case o.verdict when 'a' then 'accepted' when 'o' then 'outlier' when 's' then 'soft-failed' when 'r' then 'rejected'
               when 't' then 'stale' when 'q' then 'quarantined' end,
           jsonb_build_object('auth_events', history.safe_json(e.json) -> 'auth_events')
    from unnest(chain, levels) with ordinality c (event_id, level, place)
    left join eventlog.event_keys i on i.key = eventlog.event_key(c.event_id)
    left join eventlog.events e on e.id = i.id and e.kind = 's' and e.event_id = c.event_id
    left join eventlog.outputs o on o.entry = e.id and o.kind = 's'
    left join roomserver.redactions x on x.target = c.event_id
    order by c.level, e.id desc nulls last, c.place;
    if frontier <> '{}' then
        step := level; kind := 'more'; event_id := null; type := null; state_key := null; detail := jsonb_build_object('bound', most);
        return next;
    end if;
end
$$;
comment on function history.why_state(text, text, text, timestamptz, integer) is 'Why a piece of a room''s state is what it is (or was at a moment): kind state is the event that stands, absent that none does, resolution a recorded state resolution that decided on the key (detail: candidates, winner, why others were refused), auth the chain of events that allowed it (step: how far away; detail: the events it names), unknown one that is not known here, more that there are more than asked for. Fails with P0002 as history.state_at does.';

create or replace view history.receipts as
select r.room_id,
       c.user_id,
       c.receipt_type,
       nullif(c.thread_id, '') as thread,
       c.event_id,
       to_timestamp(greatest(-62135596800000, least(253402300799999, c.ts)) / 1000.0) as read_at,
       c.event_position as place,
       c.position as change,
       c.room
from roomserver.receipts c
join roomserver.rooms r on r.nid = c.room;
comment on view history.receipts is 'How far everyone has read: the last receipt of each user, room, type and thread. For one room, history.receipts_of(room_id).';
comment on column history.receipts.room_id is 'Matrix room id.';
comment on column history.receipts.user_id is 'Whose.';
comment on column history.receipts.receipt_type is 'm.read, or m.read.private, which others are not shown.';
comment on column history.receipts.thread is 'Event id of the thread''s first message, main for what is in no thread, null for everything.';
comment on column history.receipts.event_id is 'The event read up to.';
comment on column history.receipts.read_at is 'When the receipt was sent.';
comment on column history.receipts.place is 'That event''s order in the room''s timeline: a message at or before it was read. Null if it is not known here.';
comment on column history.receipts.change is 'Order of the receipts among themselves.';
comment on column history.receipts.room is 'The room''s number: history.rooms.room.';

create or replace function history.receipts_of(of_room text) returns setof history.receipts
language sql stable parallel safe
begin atomic
    select m.room_id, m.user_id, m.receipt_type, m.thread, m.event_id, m.read_at, m.place, m.change, m.room
    from history.receipts m
    where m.room = history.room_number(of_room);
end;
comment on function history.receipts_of(text) is 'The receipts in one room: order by change desc limit 50 reads the last fifty.';

-- Counted by maintenance some seconds after it happened: counted_until says up to when.
create or replace view history.daily_activity as
select a.day,
       r.room_id,
       a.messages,
       a.edits,
       a.reactions,
       a.changes,
       a.senders,
       a.room
from activity.rooms a
join roomserver.rooms r on r.nid = a.room;
comment on view history.daily_activity is 'What happened in each room on each day; a day on which nothing did is no row. For one room, history.activity_of(room_id).';
comment on column history.daily_activity.day is 'Day (UTC) on which it reached the log here.';
comment on column history.daily_activity.room_id is 'Matrix room id.';
comment on column history.daily_activity.messages is 'Messages sent, edits aside; those redacted later included.';
comment on column history.daily_activity.edits is 'Edits of messages.';
comment on column history.daily_activity.reactions is 'Reactions.';
comment on column history.daily_activity.changes is 'State changes: memberships, names, settings.';
comment on column history.daily_activity.senders is 'Users who did any of it.';
comment on column history.daily_activity.room is 'The room''s number: history.rooms.room.';

create or replace view history.daily_activity_of_users as
select a.day,
       a.sender as user_id,
       r.room_id,
       a.messages,
       a.edits,
       a.reactions,
       a.changes,
       a.room
from activity.users a
join roomserver.rooms r on r.nid = a.room;
comment on view history.daily_activity_of_users is 'What each user did in each room on each day: where user_id = ….';
comment on column history.daily_activity_of_users.day is 'Day (UTC) on which it reached the log here.';
comment on column history.daily_activity_of_users.user_id is 'The user.';
comment on column history.daily_activity_of_users.room_id is 'Matrix room id.';
comment on column history.daily_activity_of_users.messages is 'Messages sent, edits aside; those redacted later included.';
comment on column history.daily_activity_of_users.edits is 'Edits of messages.';
comment on column history.daily_activity_of_users.reactions is 'Reactions.';
comment on column history.daily_activity_of_users.changes is 'State changes.';
comment on column history.daily_activity_of_users.room is 'The room''s number: history.rooms.room.';

create or replace view history.daily_totals as
select d.day, d.messages, d.edits, d.reactions, d.changes, d.senders, d.rooms
from activity.days d;
comment on view history.daily_totals is 'What happened on the whole server on each day.';
comment on column history.daily_totals.day is 'Day (UTC) on which it reached the log here.';
comment on column history.daily_totals.messages is 'Messages sent, edits aside; those redacted later included.';
comment on column history.daily_totals.edits is 'Edits of messages.';
comment on column history.daily_totals.reactions is 'Reactions.';
comment on column history.daily_totals.changes is 'State changes.';
comment on column history.daily_totals.senders is 'Users who did any of it.';
comment on column history.daily_totals.rooms is 'Rooms in which any of it was done.';

create or replace function history.counted_until() returns timestamptz
language sql stable parallel safe security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
return (
    select min(case when a.position >= p.position then now() else (
        select eventlog.entry_time(o.entry) from eventlog.outputs o where o.shard = a.shard and o.position > a.position
        order by o.position limit 1) end)
    from eventlog.positions a
    join eventlog.positions p on p.component = 'roomserver' and p.shard = a.shard
    where a.component = 'activity');
comment on function history.counted_until() is 'Up to when daily activity is counted; null before anything is.';

-- Every day of a span, also those on which nothing happened: zeros from the day on which the room was first known here, null before it.
create or replace function history.activity_of(of_room text, days integer default 30)
returns table (day date, messages integer, edits integer, reactions integer, changes integer, senders integer)
language plpgsql stable parallel safe security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
as $$
#variable_conflict use_column
declare
    nid bigint := history.room_number(of_room);
    today date := (now() at time zone 'utc')::date;
    first_day date;
begin
    if days is null or days < 1 or days > 36600 then
        raise exception 'activity of % days cannot be told: ask for 1 to 36600', coalesce(days::text, '(null)') using errcode = '22023';
    end if;
    select (eventlog.entry_time(o.entry) at time zone 'utc')::date into first_day
    from (select min(s.valid_from) as edge from roomserver.state s where s.room = nid and s.line = 0) e
    join roomserver.rooms r on r.nid = nid
    join eventlog.outputs o on o.shard = r.shard and o.position = e.edge and o.kind in ('s', 'm');
    return query
    select d.day, v.messages, v.edits, v.reactions, v.changes, v.senders
    from (select today - g as day from generate_series(0, days - 1) as g) d
    left join lateral (
        select coalesce(a.messages, 0) as messages, coalesce(a.edits, 0) as edits, coalesce(a.reactions, 0) as reactions,
               coalesce(a.changes, 0) as changes, coalesce(a.senders, 0) as senders
        from (select d.day) x
        left join activity.rooms a on a.room = nid and a.day = d.day
        where d.day >= first_day
    ) v on true
    order by d.day desc;
end
$$;
comment on function history.activity_of(text, integer) is 'What happened in a room on each of the last days, today first. Null before the day on which the room was first known here: unknown, not nothing.';
