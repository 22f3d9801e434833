-- put_device --
-- Makes a device of an active account whose password is still the one that was checked; a known device keeps its name.
insert into writer.devices as d (user_id, device_id, display_name, last_seen_at, last_seen_ip)
select a.user_id, %(device_id)s, %(display_name)s, now(), %(address)s
from writer.accounts a
where a.user_id = %(user_id)s and a.deactivated_at is null and a.password_hash is not distinct from %(password_hash)s
for share
on conflict (user_id, device_id) do update set last_seen_at = now(), last_seen_ip = excluded.last_seen_ip
returning device_id

-- end_sessions_of_device --
-- Ends every session of a device.
delete from writer.sessions where user_id = %(user_id)s and device_id = %(device_id)s

-- put_session --
-- Begins a session.
insert into writer.sessions (token_hash, user_id, device_id, expires_at, refresh_hash)
values (%(token_hash)s, %(user_id)s, %(device_id)s, now() + make_interval(secs => %(seconds)s), %(refresh_hash)s)

-- session_to_refresh --
-- The session a refresh token belongs to, and whether its first use ends older ones; locked, so that two refreshes follow each other.
select s.token_hash, s.user_id, s.device_id
from writer.sessions s
join writer.accounts a on a.user_id = s.user_id and a.deactivated_at is null
where s.refresh_hash = %(refresh_hash)s
for update of s

-- end_older --
-- Ends the sessions of the device that came before this one: its refresh token is in use now.
delete from writer.sessions o
using writer.sessions s
where s.token_hash = %(token_hash)s and o.user_id = s.user_id and o.device_id = s.device_id
  and o.refresh_hash is not null and o.created_at < s.created_at

-- end_younger --
-- Ends what was given out for this refresh token before and was never used.
delete from writer.sessions o
using writer.sessions s
where s.token_hash = %(token_hash)s and o.user_id = s.user_id and o.device_id = s.device_id
  and o.refresh_hash is not null and o.created_at > s.created_at

-- drop_devices --
-- Removes devices of a user, and their sessions with them.
delete from writer.devices where user_id = %(user_id)s and device_id = any (%(device_ids)s::text[])
returning device_id
