-- Where a span of a room's timeline begins. What happened while others were in the room and nobody of this server was, nobody here
-- knows: a span with such a stretch has no answer.
create function history.span_start(of_room text, since timestamptz, until timestamptz) returns bigint
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
    -- Mostly somebody of this server was there all the time, and still is.
    if exists (select from roomserver.memberships m
               where m.room = nid and m.membership = 'j' and m.joined_at <= low
                 and substr(m.user_id, strpos(m.user_id, ':') + 1) = server)
    then
        return low;
    end if;
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
create function history.state_between(of_room text, since timestamptz, until timestamptz)
returns table (changed_at timestamptz, type text, state_key text, sender text, content jsonb, redacted boolean, event_id text,
               content_before jsonb, event_id_before text, place bigint)
language sql stable parallel restricted
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
