-- give_out --
-- Keeps a token for a time.
insert into writer.openid_tokens (token_hash, user_id, expires_at)
values (%(token_hash)s, %(user_id)s, now() + make_interval(secs => %(seconds)s))

-- owner --
-- Whose a token is, while it is good and the account in use.
select t.user_id
from writer.openid_tokens t
join writer.accounts a on a.user_id = t.user_id
where t.token_hash = %(token_hash)s and t.expires_at > now() and a.deactivated_at is null and a.locked_at is null
