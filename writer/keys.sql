-- lock_device --
-- One change of a device's keys at a time.
select 1 from writer.devices where user_id = %(user_id)s and device_id = %(device_id)s for no key update

-- epoch --
-- The present epoch.
select epoch from eventlog.epochs order by ordinal desc limit 1

-- known_keys --
-- Which of some keys a device has uploaded before, as far as they can still be handed out: null if they cannot.
select k.algorithm, k.key_id, case when k.claimed_at is null and k.epoch = %(epoch)s then k.key end
from unnest(%(algorithms)s::text[], %(key_ids)s::text[]) as w (algorithm, key_id)
join writer.one_time_keys k
    on k.user_id = %(user_id)s and k.device_id = %(device_id)s and k.algorithm = w.algorithm and k.key_id = w.key_id

-- put_keys --
-- Adds one-time keys.
insert into writer.one_time_keys (user_id, device_id, algorithm, key_id, key, epoch)
select %(user_id)s, %(device_id)s, w.algorithm, w.key_id, w.key, %(epoch)s
from unnest(%(algorithms)s::text[], %(key_ids)s::text[], %(keys)s::text[]) with ordinality as w (algorithm, key_id, key, place)
order by w.place
on conflict do nothing

-- forget_keys --
-- Forgets keys of a device that were handed out, or may have been, more than a week ago.
delete from writer.one_time_keys
where user_id = %(user_id)s and device_id = %(device_id)s and uploaded_at < now() - interval '7 days'
  and (claimed_at < now() - interval '7 days' or epoch <> %(epoch)s)

-- put_fallback_keys --
-- Replaces a device's fallback keys; one that is there already stays as used as it is.
insert into writer.fallback_keys as f (user_id, device_id, algorithm, key_id, key, epoch)
select %(user_id)s, %(device_id)s, w.algorithm, w.key_id, w.key, %(epoch)s
from unnest(%(algorithms)s::text[], %(key_ids)s::text[], %(keys)s::text[]) as w (algorithm, key_id, key)
on conflict (user_id, device_id, algorithm) do update
set used = case when f.key_id = excluded.key_id and f.key = excluded.key then f.used else false end,
    epoch = case when f.key_id = excluded.key_id and f.key = excluded.key then f.epoch else excluded.epoch end,
    key_id = excluded.key_id, key = excluded.key

-- counts --
-- How many one-time keys of each algorithm a device has left.
select algorithm, count(*)
from writer.one_time_keys
where user_id = %(user_id)s and device_id = %(device_id)s and claimed_at is null and epoch = %(epoch)s
group by algorithm

-- tell_stock --
-- Says that a device's stock of keys has changed.
select writer.tell_stock(array[%(user_id)s], array[%(device_id)s])

-- claim --
-- Hands out one key for each wish that can be met.
select keys::text, entry from writer.claim_keys_v1(%(wanted)s::jsonb)

-- keys_of_users --
-- The keys of devices and users, with the devices' names.
select k.user_id, k.usage, k.key_id, k.key, d.display_name
from roomserver.user_keys k
left join writer.devices d on d.user_id = k.user_id and d.device_id = k.key_id and k.usage = 'device'
where k.user_id = any(%(users)s) and k.usage <> 'signed'

-- gone --
-- Those of some devices that a user does not have.
select w.device_id
from unnest(%(device_ids)s::text[]) as w (device_id)
where not exists (select from writer.devices d where d.user_id = %(user_id)s and d.device_id = w.device_id)

-- stands --
-- Whether a device's keys came from this device, and not from one of that id that has gone, which the log may not have judged yet.
select 1
from writer.devices d
join roomserver.user_keys k on k.user_id = d.user_id and k.usage = 'device' and k.key_id = d.device_id
join eventlog.outputs o on o.shard = k.shard and o.position = k.position
where d.user_id = %(user_id)s and d.device_id = %(device_id)s and eventlog.entry_time(o.entry) >= d.created_at

-- signed --
-- What a user has signed of others.
select key_id, key from roomserver.user_keys where user_id = %(user_id)s and usage = 'signed' and key_id = any(%(users)s)

-- strays --
-- By shard, the last message that waits for a device that is no more.
select t.shard, max(t.position)
from roomserver.to_device t
where t.user_id = %(user_id)s and t.device_id = %(device_id)s
  and not exists (select from writer.devices d where d.user_id = t.user_id and d.device_id = t.device_id)
group by t.shard

-- recipients --
-- The devices of users, with whether so many messages wait for one that it takes no more.
select d.user_id, d.device_id,
       (select count(*) >= %(most)s
        from (select from roomserver.to_device t
              where t.user_id = d.user_id and t.device_id = d.device_id
              limit %(most)s) q)
from writer.devices d
where d.user_id = any(%(users)s)
