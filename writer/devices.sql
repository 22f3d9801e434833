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
