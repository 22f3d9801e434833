-- create_database --
-- Makes the database of the server under test.
create database benchmark template template0 encoding 'UTF8' locale 'C'

-- vacuum --
-- Empties pending lists of indexes, and makes maps of free space and of what all see.
vacuum

-- checkpoint --
-- Brings every dirty page to disk, so that sizes are comparable.
checkpoint

-- wal_position --
-- The bytes of WAL written since the cluster began.
select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')

-- table_sizes --
-- The bytes of each table with its indexes and TOAST, partitions singly.
select n.nspname || '.' || c.relname, pg_total_relation_size(c.oid)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm')
    and n.nspname not in ('pg_catalog', 'information_schema')
    and n.nspname not like 'pg_toast%%'

-- settings --
-- The settings that decide durability and memory, as the running cluster has them.
select name, current_setting(name)
from unnest(%(names)s::text[]) name

-- version --
-- The server's version.
select version()

-- synapse_extremities --
-- The forward extremities of a room in Synapse.
select count(*)
from event_forward_extremities
where room_id = %(room_id)s

-- walden_extremities --
-- The forward extremities of a room in Walden.
select cardinality(h.extremities)
from roomserver.heads h
join roomserver.rooms r on r.nid = h.room
where r.room_id = %(room_id)s
