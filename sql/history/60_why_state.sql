-- Why a room's state is what it is: the event that stands, the resolutions that decided on its key, and its auth chain, nearest first.
create function history.why_state(of_room text, of_type text, of_key text, moment timestamptz default now(), most integer default 100)
returns table (step integer, kind text, event_id text, type text, state_key text, sender text, received_at timestamptz, content jsonb,
               verdict text, detail jsonb)
language plpgsql stable parallel safe security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
as $$
#variable_conflict use_column
declare
    upto bigint := history.known_place(of_room, moment);
    known roomserver.rooms;
    standing record;
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
    select s.valid_from, e.event_id
    into standing
    from roomserver.state s
    left join eventlog.events e on e.id = s.entry and e.kind = 's'
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
