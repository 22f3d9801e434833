-- create_account --
-- Makes an account unless the name is taken, also by a deactivated one.
insert into writer.accounts (user_id, password_hash, admin, guest)
values (%(user_id)s, %(password_hash)s, %(admin)s, %(guest)s)
on conflict (user_id) do nothing
returning user_id

-- account --
-- One account by its user id.
select user_id, password_hash, admin, guest, deactivated_at, created_at from writer.accounts where user_id = %(user_id)s

-- accounts --
-- A page of accounts in order of user id, with the number of their devices.
select a.user_id, null, a.admin, a.guest, a.deactivated_at, a.created_at,
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

-- reactivate --
-- Opens a deactivated account again, under a new password.
update writer.accounts set password_hash = %(password_hash)s, deactivated_at = null
where user_id = %(user_id)s and deactivated_at is not null
returning user_id

-- drop_other_devices --
-- Logs out all devices of a user but one; their access tokens go with them.
delete from writer.devices where user_id = %(user_id)s and device_id is distinct from %(kept)s
returning device_id

-- notify_sessions --
-- Tells every process to forget what it knows of a user's sessions.
select pg_notify('walden_sessions', %(user_id)s)
