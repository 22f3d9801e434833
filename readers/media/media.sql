-- upload --
-- What a URI stands for, as far as it may be seen.
select u.blob, b.bytes, b.file, b.sha256, u.content_type, u.file_name, u.legacy, u.used_on < current_date,
       u.expires_at is not null and u.expires_at <= now()
from media.uploads u
left join media.blobs b on b.blob = u.blob
where u.media_id = %(media_id)s and u.quarantined_at is null

-- used --
-- Notes that an upload is in use, once a day.
update media.uploads set used_on = current_date where media_id = %(media_id)s and used_on < current_date

-- thumbnail --
-- A thumbnail that was made before, and how many there are of the content.
select t.content_type, t.data, t.failure, (select count(*) from media.thumbnails n where n.blob = %(blob)s)
from (values (1)) as one
left join media.thumbnails t on t.blob = %(blob)s and t.width = %(width)s and t.height = %(height)s
     and t.method = %(method)s::"char" and t.animated = %(animated)s

-- keep_thumbnail --
-- A thumbnail that was made; a content that went meanwhile gets none.
insert into media.thumbnails (blob, width, height, method, animated, content_type, data, failure)
select b.blob, %(width)s, %(height)s, %(method)s::"char", %(animated)s, %(content_type)s, %(data)s::bytea, %(failure)s
from media.blobs b where b.blob = %(blob)s and b.sha256 is not null
on conflict do nothing
