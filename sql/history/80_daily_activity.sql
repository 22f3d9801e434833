-- Counted by maintenance some seconds after it happened: counted_until says up to when.
create view history.daily_activity as
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

create view history.daily_activity_of_users as
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

create view history.daily_totals as
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

create function history.counted_until() returns timestamptz
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
create function history.activity_of(of_room text, days integer default 30)
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
