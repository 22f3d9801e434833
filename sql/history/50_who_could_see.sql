-- Who could see an event, by the history visibility of the room and the memberships, both as before it.
-- Specification, client-server API, "Room History Visibility": the same rules as matrix/visibility.py; a test compares the two.
create function history.sight_of(of_event text)
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
create function history.value_before(of_room bigint, of_line integer, base bigint, after_position bigint, of_type text, of_key text)
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

create function history.sight_by(of_room bigint, of_user text, of_line integer, base bigint, before bigint, place bigint, visibility text,
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

create function history.who_could_see(of_event text)
returns table (user_id text, how text, membership text, content_withheld boolean)
language sql stable parallel restricted
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
