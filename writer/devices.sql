-- devices --
-- The devices of a user.
select device_id, display_name, last_seen_ip, (extract(epoch from last_seen_at) * 1000)::bigint
from writer.devices
where user_id = %(user_id)s
order by created_at, device_id
limit 10000

-- device --
-- One device.
select device_id, display_name, last_seen_ip, (extract(epoch from last_seen_at) * 1000)::bigint
from writer.devices
where user_id = %(user_id)s and device_id = %(device_id)s

-- rename --
-- Gives a device another name.
update writer.devices set display_name = %(display_name)s
where user_id = %(user_id)s and device_id = %(device_id)s
returning device_id

-- exists --
-- Whether a user has the device.
select 1 from writer.devices where user_id = %(user_id)s and device_id = %(device_id)s

-- connections --
-- From where the devices of a user that are logged in were last used.
select d.device_id, d.last_seen_ip, (extract(epoch from d.last_seen_at) * 1000)::bigint, d.last_seen_user_agent
from writer.devices d
where d.user_id = %(user_id)s
  and exists (select from writer.sessions s where s.user_id = d.user_id and s.device_id = d.device_id)
order by d.last_seen_at desc nulls last, d.device_id
limit 10000
