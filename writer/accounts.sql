-- create_account --
-- Makes an account unless the name is taken, also by a deactivated one.
insert into writer.accounts (user_id, password_hash, admin, guest)
values (%(user_id)s, %(password_hash)s, %(admin)s, %(guest)s)
on conflict (user_id) do nothing
returning user_id

-- upgrade_guest --
-- Makes a guest a user, with a password.
update writer.accounts set guest = false, password_hash = %(password_hash)s
where user_id = %(user_id)s and guest and deactivated_at is null
returning user_id

-- account --
-- One account by its user id.
select user_id, password_hash, admin, guest, deactivated_at, created_at, locked_at is not null, suspended_at is not null
from writer.accounts
where user_id = %(user_id)s

-- owner --
-- Which account has a third-party identifier.
select user_id from writer.threepids where medium = %(medium)s and address = %(address)s

-- accounts --
-- A page of accounts in order of user id, with the number of their devices.
select a.user_id, null, a.admin, a.guest, a.deactivated_at, a.created_at,
       a.locked_at is not null, a.suspended_at is not null,
       (select count(*) from writer.devices d where d.user_id = a.user_id)
from writer.accounts a
where a.user_id > %(after)s
order by a.user_id
limit %(most)s

-- set_password --
-- Replaces the password of an active account.
update writer.accounts set password_hash = %(password_hash)s
where user_id = %(user_id)s and deactivated_at is null
returning user_id

-- set_admin --
-- Makes an active account a server administrator, or no longer.
update writer.accounts set admin = %(admin)s
where user_id = %(user_id)s and deactivated_at is null
returning user_id

-- deactivate --
-- Ends an account for good: no password, no more logins; its name stays taken.
update writer.accounts set password_hash = null, admin = false, deactivated_at = now()
where user_id = %(user_id)s and deactivated_at is null
returning user_id

-- set_locked --
-- Locks an active account, or unlocks it; one that is locked keeps the time it was.
update writer.accounts set locked_at = case when %(wanted)s then coalesce(locked_at, now()) end
where user_id = %(user_id)s and deactivated_at is null
returning user_id

-- set_suspended --
-- Suspends an active account, or no longer; one that is suspended keeps the time it was.
update writer.accounts set suspended_at = case when %(wanted)s then coalesce(suspended_at, now()) end
where user_id = %(user_id)s and deactivated_at is null
returning user_id

-- drop_belongings --
-- Removes what an account has beside its devices: third-party identifiers, tokens of all kinds, backed up keys.
with backups as (delete from writer.key_backups where user_id = %(user_id)s),
     threepids as (delete from writer.threepids where user_id = %(user_id)s),
     login_tokens as (delete from writer.login_tokens where user_id = %(user_id)s),
     openid_tokens as (delete from writer.openid_tokens where user_id = %(user_id)s)
delete from writer.filters where user_id = %(user_id)s

-- depart --
-- Notes that the rooms of an account are to be left.
insert into writer.departures as d (user_id, erase, due_at)
values (%(user_id)s, %(erase)s, now() + make_interval(secs => %(grace_seconds)s))
on conflict (user_id) do update set erase = d.erase or excluded.erase, due_at = excluded.due_at

-- departing --
-- Whether the rooms of a deactivated account are still to be left.
select 1 from writer.departures where user_id = %(user_id)s

-- drop_other_devices --
-- Logs out all devices of a user but one; their access tokens go with them.
delete from writer.devices where user_id = %(user_id)s and device_id is distinct from %(kept)s
returning device_id

-- gone_devices --
-- The last entry by which this transaction has said that devices of a user are gone.
select max(e.id)
from eventlog.events e
where e.kind = 'u' and e.id >= eventlog.id_at(now()) and e.type = 'keys' and e.sender = %(user_id)s

-- notify_sessions --
-- Tells every process to forget what it knows of a user's sessions.
select pg_notify('walden_sessions', %(user_id)s)
