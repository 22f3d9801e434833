-- The first reply begins a thread: also one that was fetched later and stands earlier. A trigger, for whoever writes a relation means this as well; others than replies do not pay for it.
create function roomserver.begin_thread() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    insert into roomserver.threads (room, root, begun, entry, event_id)
    values (new.room, new.target, new.timeline, new.entry, new.event_id)
    on conflict (room, root) do update
    set begun = excluded.begun, entry = excluded.entry, event_id = excluded.event_id
    where threads.begun > excluded.begun;
    return null;
end
$$;
comment on function roomserver.begin_thread() is 'Notes the thread that a reply begins.';

create trigger begin_thread after insert on roomserver.relations
for each row when (new.rel_type = 'm.thread') execute function roomserver.begin_thread();

-- The other way round where retention or a purge takes replies away: the next one begins the thread, or there is none any more.
create function roomserver.end_thread() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    delete from roomserver.threads t where t.room = old.room and t.root = old.target and t.begun = old.timeline;
    if found then
        insert into roomserver.threads (room, root, begun, entry, event_id)
        select l.room, l.target, l.timeline, l.entry, l.event_id
        from roomserver.relations l
        where l.target = old.target and l.rel_type = 'm.thread' and l.room = old.room
        order by l.timeline
        limit 1
        on conflict (room, root) do nothing;
    end if;
    return null;
end
$$;
comment on function roomserver.end_thread() is 'Forgets the thread that a reply began, or lets the next reply begin it.';

create trigger end_thread after delete on roomserver.relations
for each row when (old.rel_type = 'm.thread') execute function roomserver.end_thread();
