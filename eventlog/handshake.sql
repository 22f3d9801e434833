-- settings --
-- What the stream depends on, as this very session sees it.
select current_setting('server_version_num')::int as server_version,
       current_setting('wal_level') as wal_level,
       (extract(epoch from current_setting('wal_sender_timeout')::interval))::float8 as wal_sender_timeout,
       pg_is_in_recovery() as in_recovery

-- missing_publications --
-- Those of the wanted publications that this database does not have.
select wanted.name from unnest(%(names)s::text[]) as wanted (name)
where not exists (select from pg_catalog.pg_publication p where p.pubname = wanted.name)
