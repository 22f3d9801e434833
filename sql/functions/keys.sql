-- The shard of a user's entries, as eventlog/shards.py has it, for entries that are appended by what happens to a row.
create function eventlog.user_shard(of_user text) returns smallint
language plpgsql stable security definer
set search_path = ''
as $$
declare
    octets bytea := convert_to(of_user, 'UTF8');
    crc bigint := 4294967295;
    n integer;
begin
    select i.shards into n from eventlog.installation i;
    if n is null or n = 1 then
        return 0;
    end if;
    for place in 0 .. length(octets) - 1 loop
        crc := crc # get_byte(octets, place);
        for bit in 1 .. 8 loop
            crc := case when crc & 1 = 1 then (crc >> 1) # 3988292384 else crc >> 1 end;
        end loop;
    end loop;
    return ((crc # 4294967295) % n)::smallint;
end
$$;
comment on function eventlog.user_shard(text) is 'Shard of a user: CRC-32 of the id modulo the number of shards.';

-- What is said of keys that are no log entries themselves: that the stock of some devices has changed. In the transaction that
-- changes it, and in one entry, however many they are.
create function writer.tell_stock(users text[], devices text[]) returns bigint
language sql volatile security definer
set search_path = ''
begin atomic
    select a.entry
    from (
        select min(u.user_id) as user_id, json_object_agg(u.user_id, u.devices)::text as devices
        from (
            select d.user_id, json_agg(distinct d.device_id) as devices
            from unnest(users, devices) as d (user_id, device_id)
            group by d.user_id
        ) u
    ) t
    cross join lateral eventlog.append_v1(jsonb_build_object('rooms', '[]'::jsonb, 'entries', jsonb_build_array(jsonb_build_object(
        'o', 0, 'kind', 'u', 'shard', eventlog.user_shard(t.user_id), 'type', 'key_stock', 'sender', t.user_id,
        'json', '{"devices":' || t.devices || '}')))) a;
end;
comment on function writer.tell_stock(text[], text[]) is 'Appends a key_stock entry for some devices; its id.';

-- Each key in one committed statement: what is locked by another claim is passed over, never waited for.
create function writer.claim_keys_v1(wanted jsonb, out keys jsonb, out entry bigint)
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    want record;
    found_key record;
    present text;
    users text[] := '{}';
    devices text[] := '{}';
begin
    keys := '[]';
    select e.epoch into present from eventlog.epochs e order by e.ordinal desc limit 1;
    for want in
        select w.o, w.user_id, w.device_id, w.algorithm
        from jsonb_to_recordset(wanted) as w (o integer, user_id text, device_id text, algorithm text)
        order by w.user_id, w.device_id, w.algorithm, w.o
    loop
        update writer.one_time_keys k
        set claimed_at = now()
        where (k.user_id, k.device_id, k.algorithm, k.key_id) = (
            select n.user_id, n.device_id, n.algorithm, n.key_id
            from writer.one_time_keys n
            where n.user_id = want.user_id and n.device_id = want.device_id and n.algorithm = want.algorithm
              and n.claimed_at is null and n.epoch = present
            order by n.ordinal
            limit 1
            for update skip locked
        )
        returning k.key_id, k.key into found_key;
        if not found then
            update writer.fallback_keys f
            set used = true
            where f.user_id = want.user_id and f.device_id = want.device_id and f.algorithm = want.algorithm and not f.used
            returning f.key_id, f.key into found_key;
            if not found then
                -- Used already: that changes nothing.
                select f.key_id, f.key into found_key
                from writer.fallback_keys f
                where f.user_id = want.user_id and f.device_id = want.device_id and f.algorithm = want.algorithm;
                if found then
                    keys := keys || jsonb_build_array(jsonb_build_array(want.o, found_key.key_id, found_key.key));
                end if;
                continue;
            end if;
        end if;
        users := users || want.user_id;
        devices := devices || want.device_id;
        keys := keys || jsonb_build_array(jsonb_build_array(want.o, found_key.key_id, found_key.key));
    end loop;
    if users <> '{}' then
        entry := writer.tell_stock(users, devices);
    end if;
end
$$;
comment on function writer.claim_keys_v1(jsonb) is 'Hands out one key for each of [{o, user_id, device_id, algorithm}] that has one: a one-time key, never twice, else the fallback key. [[o, id, key]], and the entry that says so.';

-- However a device goes (logging out, deactivation, an administrator's command), everybody is told in the same transaction.
create function writer.tell_gone_devices() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    perform eventlog.append_v1(jsonb_build_object('rooms', '[]'::jsonb, 'entries', jsonb_agg(jsonb_build_object(
        'o', d.o, 'kind', 'u', 'shard', eventlog.user_shard(d.user_id), 'type', 'keys', 'sender', d.user_id,
        'json', json_build_object('keys', json_build_array(
            json_build_object('usage', 'device', 'id', d.device_id, 'key', null)))::text))))
    from (select row_number() over () as o, g.user_id, g.device_id from gone g) d
    having count(*) > 0;
    return null;
end
$$;
comment on function writer.tell_gone_devices() is 'Appends a keys entry for each device that was deleted.';

create trigger tell_gone_devices after delete on writer.devices
referencing old table as gone
for each statement execute function writer.tell_gone_devices();

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
