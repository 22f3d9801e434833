-- take --
-- Takes up a departure that is due, for a time; another process takes it up again if this one does not finish it.
update writer.departures d
set due_at = now() + make_interval(secs => %(lease_seconds)s), attempts = d.attempts + 1
from (select user_id from writer.departures where due_at <= now() order by due_at limit 1 for update skip locked) due
where d.user_id = due.user_id
returning d.user_id, d.erase, d.attempts

-- finish --
-- Notes that a departure is done.
delete from writer.departures where user_id = %(user_id)s

-- account_data_types --
-- What account data a user still has.
select room_id, type from roomserver.account_data
where user_id = %(user_id)s and content <> '{}'
limit %(most)s

-- profile_fields --
-- Which profile fields a user still has.
select field from roomserver.profiles where user_id = %(user_id)s limit %(most)s

-- status --
-- Whether a user has said anything of how they are.
select 1 from roomserver.presence where user_id = %(user_id)s and status_msg is not null

-- own_keys --
-- Which keys a user has beside those of devices.
select usage, key_id from roomserver.user_keys where user_id = %(user_id)s and usage <> 'device' limit %(most)s
