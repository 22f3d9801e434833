-- Whether somebody of this server was in a room throughout a span is mostly told by those who are there now.

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
