-- here --
-- Which database this is: system, timeline (none during recovery), OID, and whether it was ever made Walden's.
select c.system_identifier::text,
       case when pg_is_in_recovery() then 0
            else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer end,
       d.oid::bigint,
       to_regclass('eventlog.epochs') is not null
from pg_catalog.pg_control_system() c, pg_catalog.pg_database d
where d.datname = current_database()

-- paused --
-- Whether recovery has stopped at its target and waits for somebody to say go on.
select pg_is_in_recovery(), case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() = 'paused' else false end

-- epochs --
-- Every epoch, the present one first; as JSON, for a database that has been restored may be of an older schema.
select to_jsonb(e)::text from eventlog.epochs e order by e.ordinal desc limit 1000

-- heads --
-- How far every shard of the room server is.
select position from eventlog.positions where component = 'roomserver' order by shard

-- slots --
-- Our durable slots in this database.
select slot_name from pg_catalog.pg_replication_slots
where database = current_database() and not temporary and starts_with(slot_name, 'walden_' || %(oid)s::text || '_')

-- begin_epoch --
-- Begins an epoch after another, unless somebody has; gives the current one.
select eventlog.begin_epoch_v2(%(epoch)s, %(after)s, %(why)s, %(system)s, %(timeline)s, %(database)s, %(abandoned)s::jsonb, %(at_once)s)
