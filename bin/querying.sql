-- become_history --
-- Whatever the login may do, the query may read history and nothing else.
set local role walden_history

-- settings --
-- A time limit, no waiting for locks, and names that mean what they say.
select set_config('statement_timeout', %(milliseconds)s, true), set_config('lock_timeout', '5s', true),
       set_config('search_path', 'pg_catalog', true), set_config('standard_conforming_strings', 'on', true),
       set_config('idle_in_transaction_session_timeout', '60s', true)

-- relations --
-- The views of the schema history, with their columns.
select c.relname::text, array(
           select a.attname::text from pg_catalog.pg_attribute a
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum)
from pg_catalog.pg_class c
where c.relnamespace = 'history'::regnamespace and c.relkind = 'v'

-- functions --
-- The functions of the schema history, with the columns that those have that give rows.
select p.proname::text, coalesce(p.proargnames, '{}')::text[]
from pg_catalog.pg_proc p
where p.pronamespace = 'history'::regnamespace and p.prokind = 'f'
