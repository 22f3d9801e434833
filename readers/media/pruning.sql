-- overdue --
-- URIs whose content did not come in time.
select media_id from media.uploads where blob is null and expires_at < now() - interval '1 hour' order by expires_at limit %(most)s

-- forget_previews --
-- Previews that are old.
delete from media.previews where url_hash in (
    select url_hash from media.previews where fetched_at < now() - make_interval(secs => %(days)s * 86400) limit %(most)s)

-- pictures --
-- Pictures of previews that are gone.
select u.media_id from media.uploads u
where u.user_id is null and u.created_at < now() - interval '1 hour'
  and not exists (select from media.previews p where p.media_id = u.media_id)
order by u.created_at limit %(most)s

-- unused --
-- What nobody has downloaded for so long. What is in quarantine stays there.
select media_id from media.uploads
where used_on < current_date - ceil(%(days)s)::integer and blob is not null and quarantined_at is null
order by used_on limit %(most)s

-- of_user --
-- Uploads of a user.
select media_id from media.uploads where user_id = %(user_id)s order by created_at limit %(most)s

-- remove --
-- Takes uploads away; returns how many.
select media.remove_v1(%(media_ids)s)

-- condemn --
-- Contents that are to go now.
select blob, file from media.condemn_v1(%(file_days)s, %(most)s)

-- remove_chunks --
-- Some pieces of a content.
delete from media.chunks where blob = %(blob)s and number in (
    select number from media.chunks where blob = %(blob)s limit %(most)s)

-- remove_thumbnails --
-- The thumbnails of a content.
delete from media.thumbnails where blob = %(blob)s

-- remove_blob --
-- A content that nothing is left of.
delete from media.blobs where blob = %(blob)s and sha256 is null

-- known_files --
-- Which of these files the database knows.
select file from media.blobs where file = any (%(files)s)

-- files --
-- Files that the database knows, after one of them.
select file, bytes from media.blobs where file > %(after)s and sha256 is not null order by file limit %(most)s

-- quarantine --
-- Lets nobody have an upload, nor others with the same content; or lets everybody again.
update media.uploads set quarantined_at = case when %(held)s::boolean then now() end, quarantined_by = %(by)s
where (media_id = any (%(media_ids)s) or blob in (select blob from media.uploads where media_id = any (%(media_ids)s)))
  and (quarantined_at is not null) <> %(held)s::boolean

-- shown --
-- What is known of uploads.
select u.media_id, u.user_id, u.created_at, u.used_on, u.content_type, u.file_name, b.bytes, encode(b.sha256, 'hex'), b.file,
       u.quarantined_at, u.quarantined_by, u.expires_at,
       (select count(*) from media.uploads o where o.blob = u.blob and o.media_id <> u.media_id)
from media.uploads u left join media.blobs b on b.blob = u.blob
where u.media_id = any (%(media_ids)s) or u.user_id = %(user_id)s
order by u.created_at desc limit %(most)s

-- totals --
-- How much there is of everything: uploads, of them in quarantine and awaited, contents in the database and in files with their bytes,
-- contents that wait to go, thumbnails, previews.
select (select count(*) from media.uploads),
       (select count(*) from media.uploads where quarantined_at is not null),
       (select count(*) from media.uploads where blob is null),
       count(*) filter (where file is null and sha256 is not null), coalesce(sum(bytes) filter (where file is null and sha256 is not null), 0),
       count(*) filter (where file is not null and sha256 is not null),
       coalesce(sum(bytes) filter (where file is not null and sha256 is not null), 0),
       count(*) filter (where idle_since is not null),
       (select count(*) from media.thumbnails), (select count(*) from media.previews)
from media.blobs

-- largest --
-- Who has uploaded most.
select user_id, files, bytes from media.usage where files > 0 order by bytes desc limit %(most)s
