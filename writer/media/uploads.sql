-- expect --
-- A URI whose content comes later, unless its user has too many of these.
insert into media.uploads (media_id, user_id, expires_at)
select %(media_id)s, %(user_id)s, now() + make_interval(secs => %(seconds)s)
where (select count(*) from media.uploads u
       where u.user_id = %(user_id)s and u.blob is null and u.expires_at > now()) < %(most)s
returning (extract(epoch from expires_at) * 1000)::bigint

-- awaited --
-- Of a URI: whose it is, whether its content is there, and whether it is still awaited, which in quarantine it is not.
select user_id, blob is not null, expires_at > now() and quarantined_at is null from media.uploads where media_id = %(media_id)s

-- allowance --
-- What a user has uploaded.
select files, bytes from media.usage where user_id = %(user_id)s

-- equal --
-- The content of that hash that there is.
select blob, bytes, file from media.blobs where sha256 = %(sha256)s

-- replace --
-- Puts a content that was written in the place of an equal one that is lost, which goes.
with lost as (
    update media.blobs b set sha256 = null, idle_since = now()
    where b.blob = %(lost)s and b.sha256 = %(sha256)s
    returning b.blob
)
update media.uploads u set blob = %(blob)s from lost l where u.blob = l.blob

-- store --
-- An upload whose content was written, unless its URI has been put into quarantine before there was one.
select case
    when exists (select from media.uploads u where u.media_id = %(media_id)s and u.quarantined_at is not null) then 'unknown'
    else media.store_v1(%(media_id)s, %(user_id)s, %(blob)s, %(sha256)s, %(bytes)s, %(content_type)s, %(file_name)s, %(awaited)s,
                        %(legacy)s, %(most_files)s, %(most_bytes)s)
end

-- name --
-- Says of which type an upload of the server's own is.
update media.uploads set content_type = %(content_type)s where media_id = %(media_id)s and user_id is null
