-- known --
-- What a client began before, for the same purpose and address with the same secret.
select sid, send_attempt from writer.threepid_validations
where purpose = %(purpose)s and medium = 'email' and address = %(address)s and client_secret = %(client_secret)s

-- begin --
-- Begins a validation, or begins it again with another token; nothing when a later attempt has been made meanwhile.
insert into writer.threepid_validations as v (sid, purpose, medium, address, client_secret, token_hash, send_attempt, next_link)
values (%(sid)s, %(purpose)s, 'email', %(address)s, %(client_secret)s, %(token_hash)s, %(send_attempt)s, %(next_link)s)
on conflict (purpose, medium, address, client_secret) do update
set token_hash = excluded.token_hash, send_attempt = excluded.send_attempt, next_link = excluded.next_link, sent_at = now(),
    validated_at = null
where v.send_attempt < excluded.send_attempt
returning sid

-- take_back --
-- Forgets an attempt whose message could not be sent.
update writer.threepid_validations set send_attempt = send_attempt - 1
where sid = %(sid)s and send_attempt = %(send_attempt)s

-- pending --
-- What a token validates, and whether its time is over.
select purpose, address, token_hash, next_link, sent_at < now() - make_interval(secs => %(seconds)s), validated_at is not null
from writer.threepid_validations
where sid = %(sid)s and client_secret = %(client_secret)s

-- validate --
-- Notes that the token came back.
update writer.threepid_validations set validated_at = coalesce(validated_at, now())
where sid = %(sid)s and token_hash = %(token_hash)s and sent_at >= now() - make_interval(secs => %(seconds)s)
returning sid

-- validated --
-- The address that was validated for a purpose, while that counts.
select address, validated_at
from writer.threepid_validations
where sid = %(sid)s and client_secret = %(client_secret)s and purpose = %(purpose)s
  and validated_at > now() - make_interval(secs => %(seconds)s)

-- end --
-- Ends a validation: it has been used.
delete from writer.threepid_validations where sid = %(sid)s
