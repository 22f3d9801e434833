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
