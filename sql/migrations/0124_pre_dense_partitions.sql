-- Partitions from now to a moment ahead: state yearly, messages monthly, user entries weekly, ephemeral outputs daily. Their columns
-- stand by width, the widest first, for PostgreSQL fills up with nothing what is narrower than what follows.
create or replace function eventlog.make_partitions(ahead interval default '3 months') returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    span record;
    starts timestamp;
    name text;
    stray boolean;
    body text;
    index regclass;
    made integer := 0;
begin
    for span in
        select v.parent, v.key, v.unit, v.step from (values
            ('events_s', 'id', 'year', interval '1 year'), ('outputs_s', 'entry', 'year', interval '1 year'),
            ('events_m', 'id', 'month', interval '1 month'), ('outputs_m', 'entry', 'month', interval '1 month'),
            ('events_u', 'id', 'week', interval '1 week'), ('outputs_u', 'entry', 'week', interval '1 week'),
            ('outputs_e', 'entry', 'day', interval '1 day')) as v (parent, key, unit, step)
    loop
        starts := date_trunc(span.unit, now() at time zone 'utc');
        -- Short spans are made for a short time ahead: fifty daily partitions would only cost planning.
        while starts < (now() at time zone 'utc') + least(ahead, span.step * 3) loop
            name := format('%s_%s', span.parent, to_char(starts, 'yyyymmdd'));
            if to_regclass(format('eventlog.%I', name)) is null then
                -- Rows that came while no partition was there stay in the default one, and so does the rest of their span.
                execute format('select exists (select from eventlog.%I where %I >= $1 and %I < $2)', span.parent || '_default',
                    span.key, span.key)
                into stray
                using eventlog.id_at(starts at time zone 'utc'), eventlog.id_at((starts + span.step) at time zone 'utc');
                if stray then
                    starts := starts + span.step;
                    continue;
                end if;
                select string_agg(d.definition, ', ' order by d.varies, d.width desc, d.place) into body
                from (
                    select concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                               case when a.attcollation <> t.typcollation then 'collate ' || a.attcollation::regcollation end,
                               case when a.attnotnull then 'not null' end) as definition,
                           a.attlen < 0 as varies, a.attlen as width, a.attnum as place
                    from pg_catalog.pg_attribute a
                    join pg_catalog.pg_type t on t.oid = a.atttypid
                    where a.attrelid = format('eventlog.%I', span.parent)::regclass and a.attnum > 0 and not a.attisdropped
                    union all
                    select format('constraint %I %s', c.conname, pg_get_constraintdef(c.oid)), true, -9, 0
                    from pg_catalog.pg_constraint c
                    where c.conrelid = format('eventlog.%I', span.parent)::regclass and c.contype = 'c'
                ) d;
                execute format('create table eventlog.%I (%s)', name, body);
                execute format('alter table eventlog.%I attach partition eventlog.%I for values from (%s) to (%s)', span.parent, name,
                    eventlog.id_at(starts at time zone 'utc'), eventlog.id_at((starts + span.step) at time zone 'utc'));
                -- What is appended in order leaves no room for what would come in between.
                for index in select i.indexrelid::regclass from pg_catalog.pg_index i where i.indrelid = format('eventlog.%I', name)::regclass loop
                    execute format('alter index %s set (fillfactor = 100)', index);
                end loop;
                execute format('create trigger append_only_truncate before truncate on eventlog.%I for each statement'
                    ' execute function eventlog.refuse_edit()', name);
                made := made + 1;
            end if;
            starts := starts + span.step;
        end loop;
    end loop;
    return made;
end
$$;
