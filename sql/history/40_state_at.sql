-- A room's state as of a moment. Never an empty answer where nothing is known: before the room was known here, and while
-- others were in it and nobody of this server was, the function fails and says so.
create function history.state_at(of_room text, moment timestamptz)
returns table (type text, state_key text, sender text, since timestamptz, content jsonb, redacted boolean, event_id text)
language plpgsql stable security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
    known roomserver.rooms;
    edge bigint;
    later bigint;
    upto bigint;
    server text := (select i.server_name from eventlog.installation i);
begin
    select r.nid, r.room_id, r.room_version, r.shard, r.created_at into known from roomserver.rooms r where r.room_id = of_room;
    if known.nid is null then
        raise exception 'the room % is not known here', of_room using errcode = 'P0002';
    end if;
    if moment is null or moment > now() then
        raise exception 'the state of % at % is not known yet', of_room, moment using errcode = 'P0002';
    end if;
    -- What was appended after the moment had no effect then, nor had what was judged after it.
    select min(o.timeline) into later
    from (
        select p.timeline
        from eventlog.outputs p
        where p.room = known.nid and p.kind in ('s', 'm') and p.timeline > 0
          and p.entry >= eventlog.id_at(moment + interval '1 millisecond')
        order by p.timeline
        limit 1
    ) o;
    upto := coalesce(later - 1, 9223372036854775806);
    select min(s.valid_from) into edge from roomserver.state s where s.room = known.nid and s.line = 0;
    if edge is null or upto < edge then
        raise exception 'the state of % at % is unknown: the room is known here since %', of_room, moment,
            (select history.change_time(known.shard, edge, null)) using errcode = 'P0002';
    end if;
    if exists (select from roomserver.state s
               where s.room = known.nid and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
                 and s.valid_from <= upto and s.valid_to > upto)
       and not exists (select from roomserver.state s
                       where s.room = known.nid and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
                         and s.valid_from <= upto and s.valid_to > upto
                         and substr(s.state_key, strpos(s.state_key, ':') + 1) = server)
    then
        raise exception 'the state of % at % is unknown: nobody of this server was in the room then', of_room, moment
            using errcode = 'P0002';
    end if;
    return query
    select s.type, s.state_key, e.sender, history.change_time(known.shard, s.valid_from, s.entry),
           case when x.target is null then c.content
               else history.redacted_content(s.type, c.content, known.room_version) end,
           x.target is not null, s.event_id
    from roomserver.state s
    join eventlog.events e on e.id = s.entry and e.kind = 's'
    cross join lateral (select history.json_text(e.json, 'content')::jsonb as content) c
    left join roomserver.redactions x on x.target = s.event_id
    where s.room = known.nid and s.line = 0 and s.valid_from <= upto and s.valid_to > upto
    order by s.type, s.state_key;
end
$$;
comment on function history.state_at(text, timestamptz) is 'The state of a room as it was at a moment, redactions applied: select type, state_key, content from history.state_at(''!room:server'', now() - interval ''7 days''). Fails with P0002 where the answer is unknown: before this server knew the room, while nobody of this server was in it, in the future. NUL in strings reads as U+10FFFF 0.';
