-- make --
-- Makes a registration token, unless there is one of that name.
insert into writer.registration_tokens (token, uses_allowed, expires_at)
values (%(token)s, %(uses_allowed)s, now() + make_interval(secs => %(seconds)s))
on conflict (token) do nothing
returning token

-- all --
-- A page of registration tokens in order of their text.
select token, uses_allowed, completed, expires_at,
       (uses_allowed is null or completed < uses_allowed) and (expires_at is null or expires_at > now())
from writer.registration_tokens
where token > %(after)s
order by token
limit %(most)s

-- end --
-- Ends a registration token.
delete from writer.registration_tokens where token = %(token)s
returning token
