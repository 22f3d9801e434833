-- wait_briefly --
-- Whoever appends or reads waits behind the one who waits for a lock of the log: so that is given up soon, and tried again.
select set_config('lock_timeout', '200ms', true)

-- make_partitions --
-- Makes the partitions of the logs ahead of time; returns how many were made.
select eventlog.make_partitions()

-- drop_ephemeral --
-- Drops partitions of ephemeral outputs whose positions everybody has passed; returns how many.
select eventlog.drop_ephemeral()

-- forget_strays --
-- Takes away messages to devices that are no more; returns how many devices that were.
select writer.forget_strays_v1(%(most)s)

-- fold_activity --
-- Counts what was not counted yet for the daily activity; returns how many outputs that were.
select activity.fold_v1(%(most)s)

-- wal_end --
-- The end of the WAL that is safe on disk.
select (pg_current_wal_flush_lsn() - '0/0')::bigint

-- forget_txns --
-- Transaction ids that are older, a part at a time: no commit is large.
delete from eventlog.txns where key in (
    select key from eventlog.txns where entry < eventlog.id_at(now() - make_interval(days => %(days)s)) limit %(most)s)

-- end_uia_sessions --
-- Interactive authentications that nobody finished in time.
delete from writer.uia_sessions where session_id in (
    select session_id from writer.uia_sessions where created_at < now() - make_interval(days => %(days)s) limit %(most)s)

-- end_sessions --
-- Access tokens that expired so long ago and were refreshed since; the last one of a device says that it may log in again.
delete from writer.sessions where token_hash in (
    select s.token_hash
    from writer.sessions s
    where s.expires_at < now() - make_interval(days => %(days)s)
      and exists (
          select from writer.sessions y
          where y.user_id = s.user_id and y.device_id = s.device_id and y.created_at > s.created_at)
    limit %(most)s)

-- end_validations --
-- Third-party identifiers that were to be validated so long ago.
delete from writer.threepid_validations where sid in (
    select sid from writer.threepid_validations where sent_at < now() - make_interval(days => %(days)s) limit %(most)s)

-- end_login_tokens --
-- Login tokens whose time is over.
delete from writer.login_tokens where token_hash in (
    select token_hash from writer.login_tokens where expires_at < now() - make_interval(days => %(days)s) limit %(most)s)

-- end_openid_tokens --
-- OpenID tokens whose time is over.
delete from writer.openid_tokens where token_hash in (
    select token_hash from writer.openid_tokens where expires_at < now() - make_interval(days => %(days)s) limit %(most)s)

-- forget_quarantine --
-- Quarantined entries that a person dealt with so long ago.
select from generate_series(1, roomserver.forget_quarantine(make_interval(days => %(days)s), %(most)s))
