-- unused_slots --
-- Slots of the cluster that no session uses: of this database all that nothing wants, of others those that hold back much.
select s.slot_name as name, s.slot_type as kind, s.database, coalesce(w.wal_end - s.restart_lsn, 0)::bigint as retained,
       to_char((to_jsonb(s) ->> 'inactive_since')::timestamptz, 'YYYY-MM-DD HH24:MI') as since,
       s.database is not distinct from current_database() as ours
from pg_catalog.pg_replication_slots s,
     (select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) w (wal_end)
where s.active_pid is null and not s.temporary and s.slot_name::text <> all(%(wanted)s::text[])
  and coalesce(s.wal_status, '') <> 'lost'
  and not coalesce((to_jsonb(s) ->> 'synced')::boolean, false)
  and (s.database is not distinct from current_database() or w.wal_end - s.restart_lsn > %(held)s)
order by s.slot_name
