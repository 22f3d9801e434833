-- give_out --
-- Keeps a token for a time, while its user's account is active.
insert into writer.login_tokens (token_hash, user_id, expires_at)
select %(token_hash)s, a.user_id, now() + make_interval(secs => %(seconds)s)
from writer.accounts a
where a.user_id = %(user_id)s and a.deactivated_at is null

-- use --
-- Uses a token up.
delete from writer.login_tokens where token_hash = %(token_hash)s
returning user_id, expires_at > now()
