-- Positions and moments. An output has no time of its own: what it judges was appended at a moment, which the entry's id holds.
-- A state change mostly takes effect with the output of the very event it is due to; one by a resolution, with that of the event
-- that joined the branches. What a room held when this server first knew it had come about before, nobody here knows when.
create function history.change_time(of_shard smallint, at_position bigint, due_to bigint) returns timestamptz
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

create function history.sent_time(document text) returns timestamptz
language sql immutable parallel safe
return to_timestamp(
    greatest(-62135596800000, least(253402300799999, history.json_text(document, 'origin_server_ts')::numeric)) / 1000);
comment on function history.sent_time(text) is 'When an event was sent, as its sender''s server says; kept within the years 1 to 9999.';

-- Where a room's timeline was at a moment. What was appended after the moment had no effect then, nor had what was judged after it.
-- Entries are judged almost in the order of their ids: of the first few hundred of the shard after a moment, one was judged first.
create function history.place_at(of_room text, moment timestamptz) returns bigint
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
create function history.known_place(of_room text, moment timestamptz) returns bigint
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
