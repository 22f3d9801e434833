-- fields --
-- All profile fields of a user.
select field, value from roomserver.profiles where user_id = %(user_id)s

-- field --
-- One profile field.
select value from roomserver.profiles where user_id = %(user_id)s and field = %(field)s

-- names --
-- What member events say of users.
select user_id, field, value from roomserver.profiles
where user_id = any (%(user_ids)s::text[]) and field in ('displayname', 'avatar_url')

-- exists --
-- Whether there is an active account.
select 1 from writer.accounts where user_id = %(user_id)s and deactivated_at is null
