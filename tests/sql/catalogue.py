"""What a database consists of, read from PostgreSQL's catalogues as plain values that can be compared."""

from __future__ import annotations

from typing import Any

import psycopg

SCHEMAS = (
    "eventlog",
    "roomserver",
    "writer",
    "activity",
    "history",
    "search",
    "userdirectory",
    "notifications",
    "media",
)

QUERIES = {
    "schemas": """
        select nspname, obj_description(oid, 'pg_namespace'), nspacl::text[] from pg_namespace where nspname = any (%(schemas)s)
    """,
    "relations": """
        select c.oid::regclass::text, c.relkind::text, c.relpersistence::text, c.reloptions, obj_description(c.oid, 'pg_class'),
               pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
               (select i.inhparent::regclass::text from pg_inherits i where i.inhrelid = c.oid),
               (select array_agg(a::text order by a::text) from unnest(c.relacl) a)
        from pg_class c where c.relnamespace::regnamespace::text = any (%(schemas)s) and c.relkind in ('r', 'p', 'v', 'm', 'S', 'c')
    """,
    "columns": """
        select a.attrelid::regclass::text, row_number() over (partition by a.attrelid order by a.attnum), a.attname,
               format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity::text, a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid), a.attcollation::regcollation::text,
               col_description(a.attrelid, a.attnum)
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where c.relnamespace::regnamespace::text = any (%(schemas)s) and a.attnum > 0 and not a.attisdropped
          and c.relkind in ('r', 'p', 'v', 'm', 'c')
    """,
    "indexes": """
        select indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisunique, indisprimary
        from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace::regnamespace::text = any (%(schemas)s)
    """,
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        from pg_constraint where connamespace::regnamespace::text = any (%(schemas)s)
    """,
    "functions": """
        select oid::regprocedure::text, pg_get_functiondef(oid), obj_description(oid, 'pg_proc'),
               (select array_agg(a::text order by a::text) from unnest(proacl) a)
        from pg_proc where pronamespace::regnamespace::text = any (%(schemas)s)
    """,
    "triggers": """
        select tgrelid::regclass::text, tgname, pg_get_triggerdef(t.oid), tgenabled::text
        from pg_trigger t join pg_class c on c.oid = t.tgrelid
        where c.relnamespace::regnamespace::text = any (%(schemas)s) and not tgisinternal
    """,
    "views": """
        select c.oid::regclass::text, pg_get_viewdef(c.oid)
        from pg_class c where c.relnamespace::regnamespace::text = any (%(schemas)s) and c.relkind in ('v', 'm')
    """,
    "sequences": """
        select schemaname, sequencename, data_type::text, start_value, min_value, max_value, increment_by, cycle, cache_size
        from pg_sequences where schemaname = any (%(schemas)s)
    """,
    "types": """
        select t.oid::regtype::text, t.typtype::text, obj_description(coalesce(nullif(t.typrelid, 0), t.oid),
               case when t.typrelid = 0 then 'pg_type' else 'pg_class' end), obj_description(t.oid, 'pg_type')
        from pg_type t left join pg_class c on c.oid = t.typrelid
        where t.typnamespace::regnamespace::text = any (%(schemas)s) and (t.typtype <> 'c' or c.relkind = 'c') and t.typelem = 0
    """,
    "publications": """
        select p.pubname, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, tablename, attnames::text[], rowfilter
        from pg_publication p join pg_publication_tables t on t.pubname = p.pubname where p.pubname = 'walden_outputs'
    """,
}


def describe(connection: psycopg.Connection[Any]) -> dict[str, list[tuple[Any, ...]]]:
    """Every object of our schemas by kind, in a fixed order."""
    return {
        kind: sorted(connection.execute(query, {"schemas": list(SCHEMAS)}).fetchall(), key=repr)
        for kind, query in QUERIES.items()
    }
