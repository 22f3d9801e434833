-- logical_slots --
-- Every logical slot of this database, with how far it lags behind the end of the WAL.
select s.slot_name, s.plugin, s.temporary, s.active_pid, s.wal_status, s.safe_wal_size,
       (s.confirmed_flush_lsn - '0/0')::int8 as confirmed_lsn,
       (w.wal_end - s.restart_lsn)::int8 as restart_lag,
       (w.wal_end - s.confirmed_flush_lsn)::int8 as confirmed_lag,
       age(s.catalog_xmin) as catalog_xmin_age,
       coalesce(to_jsonb(s) ->> 'invalidation_reason',
                case when to_jsonb(s) ->> 'conflicting' = 'true' then 'rows_removed' end) as invalidation_reason,
       coalesce((to_jsonb(s) ->> 'failover')::boolean, false) as failover
from pg_catalog.pg_replication_slots s,
     (select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) w (wal_end)
where s.slot_type = 'logical' and s.database = current_database()
  and (%(name)s::text is null or s.slot_name = %(name)s::text)
order by s.slot_name

-- slot_owner --
-- The database that a slot belongs to, wherever it is.
select database from pg_catalog.pg_replication_slots where slot_name = %(name)s

-- database_oid --
-- What a slot name carries, because slot names are global to a cluster.
select oid from pg_catalog.pg_database where datname = current_database()

-- server_version --
-- The server's version as one number.
select current_setting('server_version_num')::int

-- lock_timeout --
-- The session's lock timeout as it stands.
select current_setting('lock_timeout')

-- set_lock_timeout --
-- Bounds the wait for other transactions; statement_timeout does not apply to every form of slot creation.
select set_config('lock_timeout', %(timeout)s, false)

-- create_slot --
-- Makes a durable pgoutput slot and returns the position at which it begins.
select (lsn - '0/0')::int8 from pg_catalog.pg_create_logical_replication_slot(%(name)s, 'pgoutput', false, false)

-- create_failover_slot --
-- The same, kept in step on standbys by the server (17 and newer).
select (lsn - '0/0')::int8
from pg_catalog.pg_create_logical_replication_slot(%(name)s, 'pgoutput', false, false, true)

-- create_temporary_slot --
-- Makes a slot that lives as long as this session; on a standby, once the primary has logged what runs there (15 s at most).
select (lsn - '0/0')::int8 from pg_catalog.pg_create_logical_replication_slot(%(name)s, 'pgoutput', true, false)

-- copy_slot --
-- Makes a slot that begins where another one stands; it waits for nobody.
select (lsn - '0/0')::int8 from pg_catalog.pg_copy_logical_replication_slot(%(source)s, %(name)s, %(temporary)s::boolean)

-- advance_slot --
-- Moves an inactive slot forward.
select (end_lsn - '0/0')::int8
from pg_catalog.pg_replication_slot_advance(%(name)s, '0/0'::pg_lsn + %(lsn)s::numeric)

-- drop_slot --
-- Drops a slot of this database, and no other.
select pg_catalog.pg_drop_replication_slot(slot_name)
from pg_catalog.pg_replication_slots where slot_name = %(name)s and database = current_database()

-- open_write_transactions --
-- Who keeps a slot from being made: transactions of any database that have written.
select pid, datname, application_name, floor(extract(epoch from now() - xact_start))::int8 as seconds
from pg_catalog.pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
order by xact_start limit 5

-- drop_leftovers --
-- Durable slots that a standby has from its time as the primary: those of this database that nobody uses or keeps in step.
select s.slot_name, pg_catalog.pg_drop_replication_slot(s.slot_name)
from pg_catalog.pg_replication_slots s
where pg_catalog.pg_is_in_recovery() = %(standby)s
  and s.database = current_database()
  and s.slot_name ~ (
      '^walden_' || (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
      || '_(outputs|roomserver_s[0-9]+)$')
  and not s.temporary
  and s.active_pid is null
  and not coalesce((to_jsonb(s) ->> 'synced')::boolean, false)
