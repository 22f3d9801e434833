-- Media in quarantine stay there when they are uploaded again, and what nobody uses is found by an index.
create index uploads_unused on media.uploads (used_on);

create or replace function media.store_v1(
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
