-- tables --
-- Walden's tables and views, partitions left out.
select format('%%s.%%s', n.nspname, c.relname) as name
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by 1

-- table_rights --
-- What the roles may do with them; the columns where it is not the whole table.
select r.role, format('%%s.%%s', n.nspname, c.relname) as name, k.kind,
       case when has_table_privilege(r.role, c.oid, k.kind) then '{}'::text[] else a.columns end as columns
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
cross join unnest(%(roles)s::text[]) as r (role)
cross join unnest(%(kinds)s::text[]) as k (kind)
cross join lateral (
    select coalesce(array_agg(t.attname::text order by t.attnum), '{}') as columns
    from pg_catalog.pg_attribute t
    where t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped and k.kind in ('select', 'insert', 'update')
      and has_column_privilege(r.role, c.oid, t.attnum, case when k.kind in ('select', 'insert', 'update') then k.kind else 'select' end)
) a
where c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and (has_table_privilege(r.role, c.oid, k.kind) or cardinality(a.columns) > 0)
order by 2, 1, 3

-- functions --
-- Walden's functions, and which of the roles may execute them.
select format('%%s.%%s(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) as name, p.prosecdef as definer,
       array(select r.role from unnest(%(roles)s::text[]) as r (role) where has_function_privilege(r.role, p.oid, 'execute')) as roles
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_catalog.pg_depend d where d.objid = p.oid and d.deptype = 'e')
order by 1

-- schemas --
-- What the roles may do in the schemas, each right with its role before it.
select n.nspname as name,
       array(select r.role || ' ' || k.kind from unnest(%(roles)s::text[]) as r (role), unnest(array['usage', 'create']) as k (kind)
             where has_schema_privilege(r.role, n.oid, k.kind) order by k.kind desc) as rights
from pg_catalog.pg_namespace n
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by 1

-- sequences --
-- The sequences that one of the roles may use.
select format('%%s.%%s', n.nspname, c.relname) as name,
       array(select r.role from unnest(%(roles)s::text[]) as r (role) where has_sequence_privilege(r.role, c.oid, 'usage')) as roles
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'S' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by 1
