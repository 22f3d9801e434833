-- token --
-- Whether a registration token may be used now.
select (uses_allowed is null or completed < uses_allowed) and (expires_at is null or expires_at > now())
from writer.registration_tokens
where token = %(token)s

-- use_token --
-- Uses a registration token once, if it may still be used.
update writer.registration_tokens
set completed = completed + 1
where token = %(token)s and (uses_allowed is null or completed < uses_allowed) and (expires_at is null or expires_at > now())
returning token
