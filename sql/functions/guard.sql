-- The log cannot be edited: not by its owner either, who would have to say so.
create function eventlog.refuse_edit() returns trigger
language plpgsql
as $$
begin
    -- The search path of the functions of retention.sql and scrubbing.sql, for as long as each of them runs. There is no such
    -- schema, and every name in them has its own. A setting of our own would be clearer, but giving one to a function is a
    -- superuser's.
    if current_setting('search_path') = 'eventlog_scrubbing' then
        return case when tg_op = 'DELETE' then old else new end;
    end if;
    raise exception '% is append-only: % refused', tg_table_schema || '.' || tg_table_name, lower(tg_op)
        using errcode = '42501', hint = 'Scrubbing is done by walden maintenance, which records what it did.';
end
$$;
comment on function eventlog.refuse_edit() is 'Refuses UPDATE, DELETE and TRUNCATE of the logs.';

create trigger append_only before update or delete on eventlog.events
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.events
for each statement execute function eventlog.refuse_edit();
create trigger append_only before update or delete on eventlog.outputs
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs
for each statement execute function eventlog.refuse_edit();
create trigger append_only before update or delete on eventlog.event_keys
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.event_keys
for each statement execute function eventlog.refuse_edit();

-- A statement's trigger does not fire for a partition that is named itself; a row's is every partition's own. Truncating one has a
-- trigger that eventlog.make_partitions gives it. Dropping one is retention, and another matter.
create trigger append_only_rows before update or delete on eventlog.events
for each row execute function eventlog.refuse_edit();
create trigger append_only_rows before update or delete on eventlog.outputs
for each row execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.events_s_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.events_m_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.events_u_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs_s_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs_m_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs_u_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs_e_default
for each statement execute function eventlog.refuse_edit();

-- Readers write where they are themselves. Where the room server is, and up to where activity is counted, is not theirs to say.
create function eventlog.refuse_position() returns trigger
language plpgsql
set search_path = ''
as $$
begin
    raise exception 'a reader moves its own position alone: % refused', lower(tg_op) using errcode = '42501';
end
$$;
comment on function eventlog.refuse_position() is 'Refuses readers the positions of others.';

-- After, not before: a row trigger before an update locks the row first, which the hot path would pay for with WAL.
create trigger of_no_reader_new after insert on eventlog.positions
for each row when (new.component in ('roomserver', 'activity')
                   and pg_has_role('walden_reader', 'member') and not pg_has_role('walden_roomserver', 'member'))
execute function eventlog.refuse_position();
create trigger of_no_reader_moved after update on eventlog.positions
for each row when ((old.component in ('roomserver', 'activity') or new.component in ('roomserver', 'activity'))
                   and pg_has_role('walden_reader', 'member') and not pg_has_role('walden_roomserver', 'member'))
execute function eventlog.refuse_position();
