-- What each component may do. Run after every migration; grants are idempotent.
-- Nobody may do anything to begin with: rights that no grant below gives, as those of an earlier version, are taken back. In one
-- transaction with the grants, so that sessions never see it.
do $$
declare
    roles constant text := 'walden_writer, walden_roomserver, walden_reader, walden_maintenance, walden_history';
    name text;
begin
    for name in
        select n.nspname from pg_catalog.pg_namespace n
        where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'public')
          and pg_has_role(current_user, n.nspowner, 'usage')
        order by 1
    loop
        execute format('revoke all on schema %I from public, %s', name, roles);
        execute format('revoke all on all tables in schema %I from public, %s', name, roles);
        execute format('revoke all on all sequences in schema %I from public, %s', name, roles);
        execute format('revoke all on all functions in schema %I from public, %s', name, roles);
    end loop;
end
$$;

grant usage on schema eventlog, roomserver to walden_writer, walden_roomserver, walden_reader, walden_maintenance;
grant usage on schema writer to walden_writer, walden_reader, walden_maintenance;
grant usage on schema history to walden_history, walden_reader, walden_maintenance;

-- Whoever reads, reads the logs and the tables of record; nobody of them writes there but through functions.
grant select on all tables in schema eventlog, roomserver to walden_writer, walden_roomserver, walden_reader, walden_maintenance;
grant execute on function eventlog.entry_time(bigint), eventlog.id_at(timestamptz), eventlog.event_key(text)
    to walden_writer, walden_roomserver, walden_reader, walden_maintenance, walden_history;
grant execute on function roomserver.view_v1(json), roomserver.state_at_v2(bigint, integer, bigint)
    to walden_writer, walden_roomserver, walden_reader, walden_maintenance;
-- Asked by code of before state_at_v2, for as long as it is there.
do $$
begin
    if to_regprocedure('roomserver.state_at_v1(bigint, integer, bigint)') is not null then
        grant execute on function roomserver.state_at_v1(bigint, integer, bigint)
            to walden_writer, walden_roomserver, walden_reader, walden_maintenance;
    end if;
end
$$;

grant execute on function eventlog.append_v1(jsonb), eventlog.release_v1(text[], bigint[]) to walden_writer;
grant select, insert, update, delete on all tables in schema writer to walden_writer;
grant execute on function writer.claim_keys_v1(jsonb), writer.tell_stock(text[], text[]) to walden_writer;

grant execute on function eventlog.begin_epoch_v1(text, text, text, integer) to walden_roomserver, walden_maintenance;
grant execute on function eventlog.begin_epoch_v2(text, text, text, text, integer, bigint, jsonb, boolean) to walden_roomserver;
grant execute on function roomserver.commit_v1(jsonb), roomserver.break_chain_v1(text, bigint), eventlog.next_id() to walden_roomserver;
-- Its position moves by commit_v1 alone.
grant update (owner, pid, clean, lsn, moved_at) on eventlog.positions to walden_roomserver;
grant insert, update on eventlog.positions to walden_reader;
grant select, insert, update, delete on roomserver.attempts to walden_roomserver;
grant usage on sequence roomserver.rooms_nid_seq, eventlog.entry_numbers to walden_roomserver;

-- No hash of a password or a token.
grant select on writer.filters to walden_reader;
grant select (user_id, admin, guest, deactivated_at, created_at) on writer.accounts to walden_reader, walden_maintenance;
grant select (user_id, device_id, display_name, created_at) on writer.devices to walden_reader;
grant select (user_id, device_id, algorithm, epoch, claimed_at) on writer.one_time_keys to walden_reader;
grant select (user_id, device_id, algorithm, epoch, used) on writer.fallback_keys to walden_reader;

grant execute on function eventlog.make_partitions(interval), eventlog.drop_ephemeral(interval) to walden_maintenance;
grant execute on function eventlog.expired_spans("char", bigint), eventlog.survivors("char", bigint, bigint[]),
    eventlog.begin_keep("char", bigint), eventlog.keep("char", bigint[]), eventlog.retire("char", bigint, text[]), eventlog.retired(),
    eventlog.forget_retired(text, bigint, integer), eventlog.drop_retired(text), eventlog.scrub(bigint[], text[]),
    eventlog.scrub_notes(bigint[], text[]), roomserver.redactions_scrubbed(text[]),
    eventlog.remove_entries("char", bigint[]), eventlog.purgeable(bigint, bigint, bigint, integer),
    roomserver.purge_room(text, integer), roomserver.purge_user(text) to walden_maintenance;
grant execute on function roomserver.forget_quarantine(interval, integer) to walden_maintenance;
grant execute on function writer.forget_strays_v1(integer) to walden_maintenance;
grant insert, update, delete on eventlog.erasures to walden_maintenance;
grant select, delete on eventlog.txns to walden_maintenance;
grant delete on writer.uia_sessions, writer.sessions, writer.threepid_validations, writer.login_tokens, writer.openid_tokens
    to walden_maintenance;
-- What tells that they are over, and their keys: no refresh token's hash, no code that was sent, no client's secret.
grant select (session_id, created_at) on writer.uia_sessions to walden_maintenance;
grant select (token_hash, user_id, device_id, created_at, expires_at) on writer.sessions to walden_maintenance;
grant select (sid, sent_at) on writer.threepid_validations to walden_maintenance;
grant select (token_hash, expires_at) on writer.login_tokens, writer.openid_tokens to walden_maintenance;

grant usage on schema activity to walden_maintenance;
grant select on all tables in schema activity to walden_maintenance;
grant execute on function activity.fold_v1(integer) to walden_maintenance;

grant select on all tables in schema history to walden_history, walden_reader, walden_maintenance;
grant execute on all functions in schema history to walden_history, walden_reader, walden_maintenance;

-- Projections of readers: each is made by its reader and rebuilt by whoever may reset it.
grant usage on schema search, userdirectory, notifications to walden_reader, walden_maintenance;
grant select, insert, update, delete, truncate on all tables in schema search, userdirectory, notifications to walden_reader;
grant select on all tables in schema search, userdirectory, notifications to walden_maintenance;
grant select (id, user_id, app_id, pushkey, set_at, data) on writer.pushers to walden_reader;
grant execute on function notifications.reject_v1(text, text[]) to walden_reader;

-- Media: writers add, the reader adds thumbnails and notes the day of use, maintenance takes away.
grant usage on schema media to walden_writer, walden_reader, walden_maintenance;
grant select, insert on media.blobs, media.uploads, media.usage, media.previews to walden_writer;
grant update on media.blobs, media.uploads, media.usage, media.previews to walden_writer;
grant select, insert on media.chunks to walden_writer;
grant select on media.blobs, media.chunks, media.uploads, media.thumbnails to walden_reader;
grant insert on media.thumbnails to walden_reader;
grant update (used_on) on media.uploads to walden_reader;
grant select on media.blobs, media.uploads, media.usage, media.previews to walden_maintenance;
grant select (blob, number) on media.chunks to walden_maintenance;
grant select (blob, width, height, method, animated, made_at) on media.thumbnails to walden_maintenance;
grant update (sha256, idle_since) on media.blobs to walden_maintenance;
grant update (files, bytes) on media.usage to walden_maintenance;
grant update (quarantined_at, quarantined_by) on media.uploads to walden_maintenance;
grant delete on media.blobs, media.chunks, media.uploads, media.usage, media.thumbnails, media.previews to walden_maintenance;
grant execute on function media.store_v1(text, text, bigint, bytea, bigint, text, text, boolean, boolean, bigint, bigint) to walden_writer;
grant execute on function media.remove_v1(text[]), media.condemn_v1(double precision, integer) to walden_maintenance;
