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

-- now --
-- When this transaction began, which is when the sessions that it begins are given out: microseconds since 1970.
select (extract(epoch from now()) * 1000000)::bigint

-- readmit_session --
-- Knows again a session that was begun after all that is known of its device, in a time that a restore or a failover has lost.
insert into writer.sessions (token_hash, user_id, device_id, created_at, expires_at, refresh_hash)
select %(token_hash)s, d.user_id, d.device_id, i.at, i.at, %(refresh_hash)s
from writer.devices d
join writer.accounts a on a.user_id = d.user_id and a.deactivated_at is null
cross join (select timestamptz 'epoch' + make_interval(secs => %(at)s::bigint / 1000000.0)) as i (at)
where d.user_id = %(user_id)s and d.device_id = %(device_id)s
  and i.at > (select max(s.created_at) from writer.sessions s
              where s.user_id = d.user_id and s.device_id = d.device_id and s.refresh_hash is not null)
  and exists (select from eventlog.epochs e where e.reason in ('recover', 'failover') and e.began_at > i.at)
on conflict do nothing

-- session_to_refresh --
-- The session a refresh token belongs to, and whether its first use ends older ones; locked, so that two refreshes follow each other.
select s.token_hash, s.user_id, s.device_id, a.locked_at is not null
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
