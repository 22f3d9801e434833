-- An upload that has all its bytes. Equal contents become one: the other stays idle and is taken away later. Returns `stored`, or why
-- not: `quota` (the user may have no more), `unknown` (no such URI waits for this user's content), `late` (it took so long that
-- the bytes are gone).
create function media.store_v1(
    of_media text, of_user text, of_blob bigint, hash bytea, length bigint, content_type text, file_name text, awaited boolean,
    is_legacy boolean, most_files bigint, most_bytes bigint
) returns text
language plpgsql volatile
set search_path = ''
as $$
declare
    kept bigint;
    held timestamptz;
    held_by text;
begin
    if of_user is not null then
        insert into media.usage as u (user_id, files, bytes) values (of_user, 1, length)
        on conflict (user_id) do update set files = u.files + 1, bytes = u.bytes + excluded.bytes;
        if exists (select from media.usage u
                   where u.user_id = of_user and (u.files > most_files or u.bytes > most_bytes)) then
            raise exception using errcode = 'WM001', message = 'quota';
        end if;
    end if;
    -- Whoever stores the same in this moment is waited for.
    perform pg_catalog.pg_advisory_xact_lock(2, pg_catalog.hashtext(pg_catalog.encode(hash, 'hex')));
    select b.blob into kept from media.blobs b where b.sha256 = hash for update;
    if kept is null then
        update media.blobs b set sha256 = hash, bytes = length, idle_since = null
        where b.blob = of_blob and b.sha256 is null and b.begun_at > pg_catalog.now() - interval '20 hours';
        if not found then
            raise exception using errcode = 'WM001', message = 'late';
        end if;
        kept := of_blob;
    else
        update media.blobs b set idle_since = null where b.blob = kept and b.idle_since is not null;
    end if;
    -- What is in quarantine does not come out of it by being uploaded again.
    select u.quarantined_at, u.quarantined_by into held, held_by
    from media.uploads u where u.blob = kept and u.quarantined_at is not null order by u.quarantined_at limit 1;
    if awaited then
        update media.uploads u
        set blob = kept, content_type = store_v1.content_type, file_name = store_v1.file_name, expires_at = null, legacy = is_legacy,
            quarantined_at = held, quarantined_by = held_by
        where u.media_id = of_media and u.user_id = of_user and u.blob is null and u.expires_at > pg_catalog.now();
        if not found then
            raise exception using errcode = 'WM001', message = 'unknown';
        end if;
    else
        insert into media.uploads (media_id, user_id, blob, content_type, file_name, legacy, quarantined_at, quarantined_by)
        values (of_media, of_user, kept, store_v1.content_type, store_v1.file_name, is_legacy, held, held_by);
    end if;
    return 'stored';
exception when sqlstate 'WM001' then
    return sqlerrm;
end
$$;
comment on function media.store_v1(text, text, bigint, bytea, bigint, text, text, boolean, boolean, bigint, bigint)
    is 'Makes an upload of a content that was written: stored, or quota, unknown, late.';

-- Takes uploads away: who asks for them finds none, and contents that no other upload has become idle. Returns how many went.
create function media.remove_v1(of_media text[]) returns integer
language plpgsql volatile
set search_path = ''
as $$
declare
    gone integer;
    contents bigint[];
begin
    with removed as (
        delete from media.uploads u where u.media_id = any (of_media) returning u.user_id, u.blob
    ), counted as (
        select r.user_id, count(*) as files, sum(b.bytes) as bytes
        from removed r join media.blobs b on b.blob = r.blob
        where r.user_id is not null group by r.user_id
    ), lowered as (
        update media.usage u set files = u.files - c.files, bytes = u.bytes - c.bytes
        from counted c where u.user_id = c.user_id
    )
    select count(*), array_agg(distinct r.blob) filter (where r.blob is not null) into gone, contents from removed r;
    -- In order, so that two who remove do not wait for each other.
    perform from media.blobs b where b.blob = any (contents) order by b.blob for update;
    update media.blobs b set idle_since = pg_catalog.now()
    where b.blob = any (contents) and b.idle_since is null
      and not exists (select from media.uploads u where u.blob = b.blob);
    return gone;
end
$$;
comment on function media.remove_v1(text[]) is 'Removes uploads and lowers what their users have; returns how many.';

-- Contents whose time is over: nobody can find them by their hash any more, so they can be taken away piece by piece. Those that never
-- became whole have a day; what is in files stays as long as a backup may want it back.
create function media.condemn_v1(file_days double precision, most integer) returns table (blob bigint, file text)
language plpgsql volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
    return query
    with due as (
        select b.blob from media.blobs b
        where b.idle_since < pg_catalog.now() - case
                when b.sha256 is null then interval '1 day'
                when b.file is null then interval '0'
                else pg_catalog.make_interval(secs => file_days * 86400) end
        order by b.idle_since limit most
        for update skip locked
    )
    update media.blobs b set sha256 = null, idle_since = pg_catalog.now() - interval '2 days'
    from due d
    where b.blob = d.blob and b.idle_since is not null and not exists (select from media.uploads u where u.blob = b.blob)
    returning b.blob, b.file;
end
$$;
comment on function media.condemn_v1(double precision, integer) is 'Contents that are to be taken away now, with the names of their files.';
