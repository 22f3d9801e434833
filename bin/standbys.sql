-- standbys --
-- What a failover depends on: standbys and who runs them, what commits wait for, whether slots go over.
select current_database() as database,
       current_setting('server_version_num')::int as version,
       current_setting('synchronous_commit') as synchronous_commit,
       current_setting('synchronous_standby_names') as synchronous_standbys,
       current_setting('hot_standby_feedback') as hot_standby_feedback,
       coalesce(current_setting('sync_replication_slots', true), 'on') as sync_replication_slots,
       exists (select from pg_catalog.pg_replication_slots where slot_type = 'physical' and active) as standbys,
       exists (select from pg_catalog.pg_stat_activity where application_name like 'Patroni%%') as patroni

-- standby --
-- What a hot standby is to one who would decode from it and query it.
select pg_is_in_recovery() as standby,
       current_setting('server_version_num')::int as version,
       current_setting('hot_standby_feedback') as hot_standby_feedback,
       current_setting('primary_slot_name') as slot
