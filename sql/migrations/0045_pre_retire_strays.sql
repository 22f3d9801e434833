-- Rows of the default partitions are forgotten by the side tables as all others are.
create or replace function eventlog.retire(of_kind "char", before bigint, labels text[]) returns void
language plpgsql volatile security definer
set lock_timeout = '25ms'
set search_path = 'eventlog_scrubbing'
as $$
declare
    log record;
    part text;
    any_kept boolean;
    passed record;
begin
    for passed in execute format('select p.shard, max(o.position) as position from eventlog.positions p'
        ' join eventlog.outputs o on o.shard = p.shard and o.kind = %L and o.entry < %s where p.component = ''roomserver'' group by p.shard',
        of_kind, before)
    loop
        insert into eventlog.edges as g (kind, shard, entry, position)
        values (of_kind, passed.shard, before, passed.position)
        on conflict (kind, shard) do update
        set entry = greatest(g.entry, excluded.entry), position = greatest(g.position, excluded.position);
    end loop;
    execute format('lock table only eventlog.%I, only eventlog.%I in access exclusive mode', 'events_' || of_kind::text, 'outputs_' || of_kind::text);
    for log in select v.name, v.key from (values ('events', 'id'), ('outputs', 'entry')) as v (name, key) loop
        foreach part in array labels loop
            part := format('%s_%s_%s', log.name, of_kind, part);
            if to_regclass(format('eventlog.%I', part)) is not null then
                execute format('alter table eventlog.%I detach partition eventlog.%I', format('%s_%s', log.name, of_kind), part);
                execute format('alter table eventlog.%I rename to %I', part, 'retired_' || part);
            end if;
        end loop;
        part := format('kept_%s_%s', log.name, of_kind);
        if to_regclass(format('eventlog.%I', part)) is not null then
            execute format('alter table eventlog.%I detach partition eventlog.%I', format('%s_%s', log.name, of_kind), part);
            execute format('alter table eventlog.%I rename to %I', part, 'retired_' || part);
        end if;
        -- Rows that came while there was no partition for them.
        part := format('%s_%s_default', log.name, of_kind);
        execute format('select exists (select from eventlog.%I where %I < %s)', part, log.key, before) into any_kept;
        if any_kept then
            execute format('create table eventlog.%I (like eventlog.%I)', format('retired_%s_%s_00000000', log.name, of_kind), part);
            execute format('with strays as (delete from eventlog.%I where %I < %s returning *) insert into eventlog.%I select s.* from strays s',
                part, log.key, before, format('retired_%s_%s_00000000', log.name, of_kind));
        end if;
        part := format('kept_%s_%s', log.name, of_kind);
        execute format('select exists (select from eventlog.%I)', 'new_' || part) into any_kept;
        if any_kept then
            execute format('alter table eventlog.%I rename to %I', 'new_' || part, part);
            execute format('create trigger append_only_truncate before truncate on eventlog.%I for each statement'
                ' execute function eventlog.refuse_edit()', part);
            execute format('alter table eventlog.%I attach partition eventlog.%I for values from (minvalue) to (%s)',
                format('%s_%s', log.name, of_kind), part, before);
        else
            execute format('drop table eventlog.%I', 'new_' || part);
        end if;
    end loop;
end
$$;
