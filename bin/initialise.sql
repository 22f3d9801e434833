-- facts --
-- What the set-up has to know of the server, the database and the login it was given.
select current_setting('server_version_num')::int as version,
       current_setting('wal_level') as wal_level,
       pg_encoding_to_char(d.encoding) as encoding,
       d.datcollate as collation,
       d.datname as database,
       d.oid::bigint as database_oid,
       r.rolname as login,
       r.rolsuper as superuser,
       r.rolcreaterole as creates_roles,
       r.rolreplication as replicates,
       pg_has_role(r.oid, d.datdba, 'usage') as owns_database,
       has_database_privilege(d.datname, 'create') and has_schema_privilege('public', 'create') as creates_tables
from pg_catalog.pg_database d, pg_catalog.pg_roles r
where d.datname = current_database() and r.rolname = current_user

-- roles --
-- Which of the named roles the cluster has, and which of them may replicate or log in.
select rolname, rolreplication, rolcanlogin from pg_catalog.pg_roles where rolname = any(%(names)s)

-- users --
-- Which of the named roles have sessions in this database.
select distinct usename::text from pg_catalog.pg_stat_activity
where datname = current_database() and usename = any(%(names)s) order by 1

-- doors --
-- Whether this login decides who may connect, whether everybody may connect or make temporary tables, and which names are roles.
select d.datname, pg_has_role(current_user, d.datdba, 'usage'),
       exists (
           select from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
           where a.grantee = 0 and a.privilege_type in ('CONNECT', 'TEMPORARY')),
       array(select r.rolname::text from pg_catalog.pg_roles r where r.rolname = any(%(names)s) order by r.rolname)
from pg_catalog.pg_database d
where d.datname = current_database()

-- members --
-- Which of the named roles this login may act as.
select rolname from pg_catalog.pg_roles where rolname = any(%(names)s) and pg_has_role(current_user, oid, 'member')

-- others --
-- Sessions of Walden's processes, which on this machine do not run yet.
select pid from pg_catalog.pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and application_name like 'walden %%'
