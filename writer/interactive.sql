-- session --
-- Which request a session serves, what stages of it are completed and what they left.
select request_hash, completed, data from writer.uia_sessions where session_id = %(session_id)s

-- complete --
-- Writes down a completed stage; a session begins with its first one.
insert into writer.uia_sessions as u (session_id, request_hash, completed, data)
values (%(session_id)s, %(request_hash)s, array[%(stage)s], %(data)s)
on conflict (session_id) do update
set completed = case when excluded.completed <@ u.completed then u.completed else u.completed || excluded.completed end,
    data = (u.data::jsonb || excluded.data::jsonb)::text
where u.request_hash = excluded.request_hash
returning completed

-- end --
-- Ends a session: what it allowed has been done.
delete from writer.uia_sessions where session_id = %(session_id)s
