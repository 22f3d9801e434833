-- An append that its writer has given up is not made any more.
create or replace function eventlog.append_v1(batch jsonb)
returns table (o integer, status text, entry bigint, event_id text)
language plpgsql volatile security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
    seen eventlog.room_seen[];
    fresh eventlog.new_entry[];
    standing text[];
    -- Places and entries of what was sent before under the same transaction id.
    before_o integer[];
    before_entry bigint[];
    lone bigint;
begin
    -- Its writer has given it up, and may have told a client so: what this says may be older by now than what was taken since.
    if clock_timestamp() > to_timestamp((batch ->> 'until')::double precision) then
        return query
        select (e ->> 'o')::integer, 'late', null::bigint, null::text from jsonb_array_elements(batch -> 'entries') as e;
        return;
    end if;

    if jsonb_array_length(batch -> 'entries') = 1 then
        lone := eventlog.append_one(batch -> 'rooms' -> 0, batch -> 'entries' -> 0);
        if lone is not null then
            o := (batch #>> '{entries,0,o}')::integer;
            status := 'appended';
            entry := lone;
            event_id := batch #>> '{entries,0,event_id}';
            return next;
            return;
        end if;
    end if;

    seen := array(select r from jsonb_populate_recordset(null::eventlog.room_seen, batch -> 'rooms') as r);
    fresh := array(select e from jsonb_populate_recordset(null::eventlog.new_entry, batch -> 'entries') as e);

    -- Sorted, so that two appends cannot wait for each other.
    perform from eventlog.tips t
    where t.room_id = any (array(select r.room_id from unnest(seen) as r))
    order by t.room_id
    for update;

    -- A statement of its own, for its snapshot must be younger than the locks.
    select array_agg(r.room_id) into standing
    from unnest(seen) as r
    left join eventlog.tips t on t.room_id = r.room_id
    left join roomserver.rooms n on n.room_id = r.room_id
    left join roomserver.heads h on h.room = n.nid
    where (r.state_position is null and t.room_id is null and h.room is null)
       or (r.state_position = h.state_position
           and r.generation = h.generation
           and r.tip is not distinct from t.event_id
           and coalesce(t.state_seq <= h.judged_seq, true));

    select array_agg(e.o), array_agg(c.entry) into before_o, before_entry
    from unnest(fresh) as e
    join eventlog.txns c on c.key = decode(e.key, 'hex')
    where e.key is not null;

    return query
    with entries as (
        select e.o, e.kind, e.shard, e.event_id, e.room_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id,
               decode(e.key, 'hex') as key, e.depth, e.json
        from unnest(fresh) as e
    ),
    -- An event that was sent before breaks the chain built on it: what follows in its room is to be built again.
    before as (
        select b.o, b.entry, e.kind, e.room_id
        from unnest(before_o, before_entry) as b (o, entry)
        join unnest(fresh) as e on e.o = b.o
    ),
    chosen as materialized (
        select e.*, eventlog.next_id() as id,
               row_number() over (partition by e.kind = 'u', e.room_id order by e.o) as place
        from entries e
        where (e.kind = 'u' and not exists (select from before b where b.o = e.o))
           or (e.kind <> 'u' and e.room_id = any (standing)
               and not exists (select from before b where b.kind <> 'u' and b.room_id = e.room_id and b.o <= e.o))
        order by e.o
    ),
    placed as materialized (
        select c.*, case when c.kind <> 'u' then coalesce(t.seq, 0) + c.place end as seq
        from chosen c
        left join eventlog.tips t on c.kind <> 'u' and t.room_id = c.room_id
    ),
    last_of_room as (
        select distinct on (p.room_id) p.room_id, p.event_id, p.depth, p.seq
        from placed p
        where p.kind <> 'u'
        order by p.room_id, p.seq desc
    ),
    moved_tips as (
        insert into eventlog.tips as t (room_id, event_id, depth, seq, state_seq, generation)
        select l.room_id, l.event_id, l.depth, l.seq,
               coalesce((select max(p.seq) from placed p where p.room_id = l.room_id and p.kind = 's' and p.state_key is not null), 0),
               coalesce((select r.generation from unnest(seen) as r where r.room_id = l.room_id), 0)
        from last_of_room l
        on conflict (room_id) do update
        set event_id = excluded.event_id, depth = excluded.depth, seq = excluded.seq,
            state_seq = greatest(t.state_seq, excluded.state_seq), generation = excluded.generation
    ),
    ids as (
        insert into eventlog.event_keys (key, id)
        select eventlog.event_key(p.event_id), p.id from placed p where p.event_id is not null
    ),
    claims as (
        insert into eventlog.txns (key, entry)
        select p.key, p.id from placed p where p.key is not null
    ),
    logged as (
        insert into eventlog.events
            (id, kind, shard, local, seq, event_id, room_id, type, state_key, sender, device_id, txn_id, json)
        select p.id, p.kind, p.shard, true, p.seq, p.event_id, p.room_id, p.type, p.state_key, p.sender, p.device_id, p.txn_id, p.json
        from placed p
        order by p.o
    )
    select e.o, case when p.o is not null then 'appended' else 'moved' end, p.id, p.event_id
    from entries e
    left join placed p on p.o = e.o
    where not exists (select from before b where b.o = e.o);

    if before_o is not null then
        -- Apart, for the statement above should not have to open every partition.
        return query
        select b.o, 'duplicate', b.entry, x.event_id
        from unnest(before_o, before_entry) as b (o, entry)
        join eventlog.events x on x.id = b.entry;
    end if;
end
$$;
comment on function eventlog.append_v1(jsonb) is 'Appends a batch: {rooms: [room_seen], entries: [new_entry], until: seconds since 1970 or absent}. Answers per entry, in any order: appended, duplicate (of an earlier transaction id), moved (build it again) or late (it was after `until`, by the clock of the database).';
