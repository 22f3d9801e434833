-- The query interface of the room server: what a writer needs to build the next event of a room, in one snapshot.
-- asked: [{"room_id": text, "keys": [[type, state_key], …]}]
create function roomserver.view_v1(asked json)
returns table (
    room_id text, nid bigint, room_version text, extremities text[], depth bigint, "position" bigint, state_position bigint,
    judged_seq bigint, generation integer, joined integer, invited integer,
    tip text, tip_depth bigint, tip_seq bigint, tip_state_seq bigint, tip_generation integer, state text)
language sql stable security definer
set search_path = ''
begin atomic
    select n.room_id, n.nid, n.room_version, h.extremities, h.depth, h.position, h.state_position,
           h.judged_seq, h.generation, h.joined, h.invited,
           t.event_id, t.depth, t.seq, t.state_seq, t.generation,
           (select json_agg(json_build_array(e.event_id, e.json::json))
            from json_array_elements(a.keys) as k (pair)
            join roomserver.state s on s.room = n.nid and s.line = 0 and s.type = k.pair ->> 0 and s.state_key = k.pair ->> 1
                and s.valid_to = 9223372036854775807
            join eventlog.events e on e.id = s.entry and e.kind = 's')::text
    from json_to_recordset(asked) as a (room_id text, keys json)
    join roomserver.rooms n on n.room_id = a.room_id
    join roomserver.heads h on h.room = n.nid
    left join eventlog.tips t on t.room_id = a.room_id;
end;
comment on function roomserver.view_v1(json) is 'Rooms as they stand, for building on: head, local tip, and the state events asked for as [event id, PDU] pairs.';

-- The room's state after a position on a line, as rows of the temporal table.
create function roomserver.state_at_v2(of_room bigint, of_line integer, after_position bigint)
returns table (type text, state_key text, entry bigint, valid_from bigint)
language sql stable security definer
set search_path = ''
begin atomic
    with own as (
        select s.type, s.state_key, s.entry, s.valid_from
        from roomserver.state s
        where s.room = of_room and s.line = of_line and s.valid_from <= after_position and s.valid_to > after_position
    )
    select o.type, o.state_key, o.entry, o.valid_from from own o where o.entry is not null
    union all
    select s.type, s.state_key, s.entry, s.valid_from
    from roomserver.lines l
    join roomserver.state s on s.room = l.room and s.line = 0
        and s.valid_from <= l.base_position and s.valid_to > l.base_position and s.entry is not null
    where of_line > 0 and l.room = of_room and l.line = of_line
      and not exists (select from own o where o.type = s.type and o.state_key = s.state_key);
end;
comment on function roomserver.state_at_v2(bigint, integer, bigint) is 'State of a room after a position on a line; state keys that a fork removed are left out.';
