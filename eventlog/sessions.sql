-- session --
-- Whose an access token is, while its account is active; and whether its first use ends the one it was refreshed from.
select s.user_id, s.device_id, a.admin, a.guest, extract(epoch from s.expires_at)::double precision,
       s.refresh_hash is not null and exists (
           select from writer.sessions o
           where o.user_id = s.user_id and o.device_id = s.device_id and o.refresh_hash is not null and o.created_at < s.created_at),
       a.locked_at is not null, a.suspended_at is not null
from writer.sessions s
join writer.accounts a on a.user_id = s.user_id
where s.token_hash = %(token_hash)s and a.deactivated_at is null

-- end_older --
-- Ends the sessions that this one was refreshed from.
with ended as (
    delete from writer.sessions o
    using writer.sessions s
    where s.token_hash = %(token_hash)s and o.user_id = s.user_id and o.device_id = s.device_id
      and o.refresh_hash is not null and o.created_at < s.created_at
    returning o.user_id
)
select pg_notify('walden_sessions', e.user_id) from ended e limit 1

-- mark_seen --
-- Writes down when and from where devices were last used.
update writer.devices d
set last_seen_at = to_timestamp(x.at), last_seen_ip = x.ip,
    last_seen_user_agent = coalesce(x.user_agent, d.last_seen_user_agent)
from json_to_recordset(%(seen)s::json) as x (user_id text, device_id text, at double precision, ip text, user_agent text)
where d.user_id = x.user_id and d.device_id = x.device_id
