-- server --
-- Settings and counts that Walden depends on.
select current_setting('server_version_num')::int as version,
       current_setting('wal_level') as wal_level,
       current_setting('max_replication_slots')::int as slots,
       (select count(*) from pg_catalog.pg_replication_slots)::int as slots_used,
       current_setting('max_wal_senders')::int as senders,
       (select count(*) from pg_catalog.pg_stat_replication)::int as senders_used,
       current_setting('max_connections')::int as connections,
       current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true), '0')::int as reserved_connections,
       (select count(*) from pg_catalog.pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid()
          and not (datname = current_database() and application_name like 'walden %%'))::int as foreign_sessions,
       current_database() as database,
       (select datconnlimit from pg_catalog.pg_database where datname = current_database()) as database_limit,
       (select setting::bigint from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size') as slot_wal_megabytes,
       (select setting::bigint from pg_catalog.pg_settings where name = 'wal_sender_timeout') as sender_timeout_ms,
       current_setting('fsync') as fsync,
       current_setting('full_page_writes') as full_page_writes,
       current_setting('synchronous_commit') as synchronous_commit,
       pg_is_in_recovery() as standby,
       extract(epoch from clock_timestamp())::float8 as clock

-- collation --
-- How the database compares strings and in what encoding it keeps them.
select datcollate as collation, pg_encoding_to_char(encoding) as encoding, 'a' < 'B' as by_language
from pg_catalog.pg_database where datname = current_database()

-- login --
-- What the session's login is and may do.
select r.rolname as login, r.rolsuper as superuser, r.rolreplication as replicates,
       pg_has_role(r.oid, g.oid, 'member') as member
from pg_catalog.pg_roles r left join pg_catalog.pg_roles g on g.rolname = %(group)s
where r.rolname = current_user

-- session --
-- Settings of this session, and whose it is.
select name, setting, current_user::text from pg_catalog.pg_settings where name = any(%(names)s)

-- place --
-- Which database of which cluster this is.
select (select system_identifier from pg_catalog.pg_control_system()) as cluster, oid::bigint as database
from pg_catalog.pg_database where datname = current_database()

-- anything --
-- Answers.
select 1

-- rights --
-- Whether the component's group may do what it has to, and what nobody may.
select kind, name, role, want, case kind
    when 'execute' then has_function_privilege(role, to_regprocedure(name), 'execute')
    else has_table_privilege(role, to_regclass(name), kind) end as granted
from unnest(%(kinds)s::text[], %(names)s::text[], %(roles)s::text[], %(wants)s::boolean[]) as w (kind, name, role, want)
where exists (select from pg_catalog.pg_roles where rolname = role)

-- strangers --
-- Logins of other Walden installations of the cluster that this database lets in, and its own that must stay let in.
select d.datname as database,
       array(
           select r.rolname::text from pg_catalog.pg_roles r
           where r.rolcanlogin and r.rolname ~ '^walden_[0-9]+_' and not starts_with(r.rolname, 'walden_' || d.oid || '_')
             and has_database_privilege(r.oid, d.oid, 'connect') order by 1) as strangers,
       array(
           select r.rolname::text from pg_catalog.pg_roles r
           where starts_with(r.rolname, 'walden_' || d.oid || '_') or r.rolname = any(%(guests)s) order by 1) as own
from pg_catalog.pg_database d where d.datname = current_database()

-- publications --
-- The publications of this database.
select pubname, pubinsert, pubupdate or pubdelete or pubtruncate as more, pubviaroot
from pg_catalog.pg_publication where pubname like 'walden\_%%'

-- long_transactions --
-- Transactions that have written and stay open: they keep replication slots from being made.
select pid, datname, application_name, floor(extract(epoch from now() - xact_start))::bigint as seconds
from pg_catalog.pg_stat_activity
where backend_xid is not null and now() - xact_start > interval '30 seconds'
order by xact_start limit 5
