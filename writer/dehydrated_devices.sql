-- dehydrated --
-- The dehydrated device of a user.
select device_id, device_data from writer.dehydrated_devices where user_id = %(user_id)s

-- lock --
-- One change of a user's dehydrated device at a time.
select 1 from writer.accounts where user_id = %(user_id)s for no key update

-- remove --
-- Deletes the dehydrated device of a user: that one, or whichever there is.
delete from writer.devices d
using writer.dehydrated_devices h
where h.user_id = %(user_id)s and d.user_id = h.user_id and d.device_id = h.device_id
returning d.device_id

-- make_device --
-- Makes the device, unless there is one of that id.
insert into writer.devices (user_id, device_id, display_name)
values (%(user_id)s, %(device_id)s, %(display_name)s)
on conflict do nothing
returning device_id

-- put --
-- Keeps what makes it a device again.
insert into writer.dehydrated_devices (user_id, device_id, device_data)
values (%(user_id)s, %(device_id)s, %(device_data)s)
on conflict (user_id) do nothing
returning device_id

-- events --
-- Messages that wait for the dehydrated device of a user, after positions by shard.
select t.shard, t.position, t.sender, t.type, t.content
from roomserver.to_device t
join writer.dehydrated_devices h on h.user_id = t.user_id and h.device_id = t.device_id
where t.user_id = %(user_id)s and t.device_id = %(device_id)s and t.position > (%(since)s::bigint[])[t.shard + 1]
order by t.shard, t.position
limit %(most)s
