-- kept --
-- A preview that was made within so many seconds.
select body from media.previews where url_hash = %(url_hash)s and fetched_at > now() - make_interval(secs => %(seconds)s)

-- keep --
-- A preview that was made now. The picture of an older one goes with nobody to name it: it is found by its age.
insert into media.previews as p (url_hash, body, media_id) values (%(url_hash)s, %(body)s, %(media_id)s)
on conflict (url_hash) do update set body = excluded.body, media_id = excluded.media_id, fetched_at = now()
