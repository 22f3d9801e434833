-- make --
-- Makes a backup, unless its user has too many.
insert into writer.key_backups (user_id, algorithm, auth_data)
select %(user_id)s, %(algorithm)s, %(auth_data)s
where (select count(*) from writer.key_backups b where b.user_id = %(user_id)s and b.deleted_at is null) < %(most)s
returning id, nonce

-- forget --
-- Forgets which backups a user deleted long ago.
delete from writer.key_backups
where user_id = %(user_id)s and deleted_at is not null
  and id <= (select b.id from writer.key_backups b
             where b.user_id = %(user_id)s and b.deleted_at is not null order by b.id desc offset %(kept)s limit 1)

-- newest --
-- The backup that keys are added to.
select id, nonce, algorithm, auth_data, keys, etag::text, deleted_at is not null
from writer.key_backups
where user_id = %(user_id)s and deleted_at is null
order by id desc
limit 1

-- backup --
-- One backup of a user.
select id, nonce, algorithm, auth_data, keys, etag::text, deleted_at is not null
from writer.key_backups
where user_id = %(user_id)s and id = %(id)s and nonce = %(nonce)s

-- lock --
-- The same, for who changes its keys: one after the other.
select id, nonce, algorithm, auth_data, keys, etag::text, deleted_at is not null
from writer.key_backups
where user_id = %(user_id)s and id = %(id)s and nonce = %(nonce)s
for update

-- update --
-- Replaces what a backup says of itself.
update writer.key_backups set auth_data = %(auth_data)s where id = %(id)s

-- drop --
-- Deletes a backup and all keys in it.
with keys as (delete from writer.backed_up_keys where backup = %(id)s)
update writer.key_backups
set deleted_at = now(), auth_data = '{}', keys = 0, etag = gen_random_uuid()
where id = %(id)s

-- put --
-- Adds keys to a backup, and of two for one session keeps the better: verified, then older, then less forwarded.
with put as (
    insert into writer.backed_up_keys as k
        (backup, room_id, session_id, is_verified, first_message_index, forwarded_count, session_data)
    select %(id)s, n.room_id, n.session_id, n.is_verified, n.first_message_index, n.forwarded_count, n.session_data
    from unnest(%(room_ids)s::text[], %(session_ids)s::text[], %(verified)s::boolean[], %(indexes)s::bigint[],
                %(counts)s::bigint[], %(data)s::text[])
        as n (room_id, session_id, is_verified, first_message_index, forwarded_count, session_data)
    order by n.room_id, n.session_id
    on conflict (backup, room_id, session_id) do update
    set is_verified = excluded.is_verified, first_message_index = excluded.first_message_index,
        forwarded_count = excluded.forwarded_count, session_data = excluded.session_data
    where (excluded.is_verified, k.first_message_index, k.forwarded_count)
        > (k.is_verified, excluded.first_message_index, excluded.forwarded_count)
    returning (k.xmax = 0) as fresh
)
update writer.key_backups b
set keys = b.keys + (select count(*) from put p where p.fresh),
    etag = case when exists (select from put) then gen_random_uuid() else b.etag end
where b.id = %(id)s
returning b.keys, b.etag::text

-- remove --
-- Removes keys from a backup: of one session, of one room (no session given), or all (no room given).
with gone as (
    delete from writer.backed_up_keys k
    where k.backup = %(id)s and (%(room_id)s::text is null or k.room_id = %(room_id)s)
      and (%(session_id)s::text is null or k.session_id = %(session_id)s)
    returning 1
)
update writer.key_backups b
set keys = b.keys - (select count(*) from gone),
    etag = case when exists (select from gone) then gen_random_uuid() else b.etag end
where b.id = %(id)s
returning b.keys, b.etag::text

-- key --
-- The key of one session.
select room_id, session_id, is_verified, first_message_index, forwarded_count, session_data
from writer.backed_up_keys
where backup = %(id)s and room_id = %(room_id)s and session_id = %(session_id)s

-- page_of_room --
-- A page of the keys of one room, in order of session.
select room_id, session_id, is_verified, first_message_index, forwarded_count, session_data
from writer.backed_up_keys
where backup = %(id)s and room_id = %(room_id)s and session_id > %(session_id)s
order by session_id
limit %(most)s

-- page --
-- A page of all keys, in order of room and session.
select room_id, session_id, is_verified, first_message_index, forwarded_count, session_data
from writer.backed_up_keys
where backup = %(id)s and (room_id, session_id) > (%(room_id)s, %(session_id)s)
order by room_id, session_id
limit %(most)s
