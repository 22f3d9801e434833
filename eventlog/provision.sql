-- installation --
-- Who the database belongs to.
select server_name, signing_key_id, signing_key, shards from eventlog.installation

-- make_installation --
-- Says who the database belongs to, once.
insert into eventlog.installation (server_name, signing_key_id, signing_key, shards)
values (%(server_name)s, %(key_id)s, %(key)s, %(shards)s)
on conflict do nothing

-- make_epoch --
-- Begins the first epoch unless there is one.
insert into eventlog.epochs (epoch, system_identifier, timeline, database_oid, reason)
select %(epoch)s, s.system_identifier::text,
       ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer, d.oid::bigint, 'init'
from pg_control_system() s, pg_database d
where d.datname = current_database() and not exists (select from eventlog.epochs)
returning epoch

-- name_database --
-- Says in which database an epoch began that an older version began.
update eventlog.epochs set database_oid = (select oid::bigint from pg_database where datname = current_database())
where database_oid is null

-- make_position --
-- Lets a consumer begin at the first position.
insert into eventlog.positions (component, shard, position, lsn, epoch)
select %(component)s, %(shard)s, 0, '0/0', e.epoch
from eventlog.epochs e
order by e.ordinal desc
limit 1
on conflict do nothing

-- publication --
-- Whether a publication exists.
select pubname from pg_publication where pubname = %(name)s

-- database_oid --
-- This database's OID, part of every slot name.
select oid::bigint from pg_database where datname = current_database()

-- slots --
-- The logical slots of this database.
select slot_name from pg_replication_slots where database = current_database()
