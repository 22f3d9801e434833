-- settings --
-- What the stream depends on, as this very session sees it.
select current_setting('wal_level') as wal_level,
       (extract(epoch from current_setting('wal_sender_timeout')::interval))::float8 as wal_sender_timeout,
       pg_is_in_recovery() as in_recovery

-- publications --
-- Those of the wanted publications that this database has.
select pubname, oid from pg_catalog.pg_publication where pubname = any (%(names)s::text[])

-- may_replicate --
-- Whether this role may start a walsender, itself or, on Amazon's service, by membership.
select current_user, r.rolsuper or r.rolreplication or exists (
    select from pg_catalog.pg_roles g where g.rolname = 'rds_replication' and pg_has_role(current_user, g.oid, 'member'))
from pg_catalog.pg_roles r where r.rolname = current_user
