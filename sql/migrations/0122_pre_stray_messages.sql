-- Maintenance takes away messages to devices that were deleted before these had been judged.
-- A message that was sent while its device was being deleted stands in the log after that: nobody will ever fetch it.
create function writer.forget_strays_v1(most integer) returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    entries jsonb;
    found integer;
begin
    with recursive waiting as (
        (select t.user_id, t.device_id from roomserver.to_device t order by t.user_id, t.device_id limit 1)
        union all
        select n.user_id, n.device_id
        from waiting w
        cross join lateral (
            select t.user_id, t.device_id
            from roomserver.to_device t
            where (t.user_id, t.device_id) > (w.user_id, w.device_id)
            order by t.user_id, t.device_id
            limit 1
        ) n
    ),
    strays as (
        select w.user_id, w.device_id
        from waiting w
        where not exists (select from writer.devices d where d.user_id = w.user_id and d.device_id = w.device_id)
        limit most
    ),
    places as (
        -- A device that comes back by the name keeps what is sent to it from now on.
        select s.user_id, s.device_id, json_agg(coalesce(p.position, 0) order by n.shard) as upto
        from strays s
        cross join generate_series(0, (select i.shards - 1 from eventlog.installation i)) as n (shard)
        left join lateral (
            select max(t.position) as position
            from roomserver.to_device t
            where t.user_id = s.user_id and t.device_id = s.device_id and t.shard = n.shard
        ) p on true
        group by s.user_id, s.device_id
    )
    select count(*), jsonb_agg(jsonb_build_object(
        'o', x.o, 'kind', 'u', 'shard', eventlog.user_shard(x.user_id), 'type', 'received', 'sender', x.user_id,
        'json', json_build_object('device_id', x.device_id, 'upto', x.upto)::text))
    into found, entries
    from (select row_number() over () as o, p.* from places p) x;
    if found > 0 then
        perform eventlog.append_v1(jsonb_build_object('rooms', '[]'::jsonb, 'entries', entries));
    end if;
    return found;
end
$$;
comment on function writer.forget_strays_v1(integer) is 'Appends a received entry for each of some devices that messages wait for and that are no more; how many.';
