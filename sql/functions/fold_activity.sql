-- Counts outputs that were not counted yet, some thousand at a time: off the way that messages take, and in one transaction with the
-- position up to which they are counted. Two at once: the second finds nothing to do.
create function activity.fold_v1(most integer default 2000) returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    at record;
    counted bigint;
    folded integer := 0;
begin
    insert into eventlog.positions (component, shard, position, lsn, epoch)
    select 'activity', p.shard, 0, '0/0', p.epoch from eventlog.positions p
    where p.component = 'roomserver'
      and not exists (select from eventlog.positions a where a.component = 'activity' and a.shard = p.shard)
    on conflict do nothing;

    for at in
        select a.shard, a.position, least(p.position, a.position + most) as upto
        from eventlog.positions a
        join eventlog.positions p on p.component = 'roomserver' and p.shard = a.shard
        where a.component = 'activity' and p.position > a.position
        order by a.shard
        for update of a skip locked
    loop
        with entries as materialized (
            select o.kind, o.entry, o.room
            from eventlog.outputs o
            where o.shard = at.shard and o.position > at.position and o.position <= at.upto and o.kind in ('s', 'm')
              and o.verdict = 'a' and o.room is not null
        ),
        bounds as (
            select min(entry) as low, max(entry) as high from entries
        ),
        done as (
            select e.sender, (eventlog.entry_time(n.entry) at time zone 'utc')::date as day, n.room, n.entry,
                   n.kind = 's' as change,
                   e.type = 'm.reaction' as reaction,
                   e.type in ('m.room.message', 'm.room.encrypted', 'm.sticker') as message,
                   position('"rel_type":"m.replace"' in e.json) > 0 as edit
            from entries n
            join eventlog.events e on e.id = n.entry and e.kind = n.kind and e.kind in ('s', 'm')
                and e.id >= (select b.low from bounds b) and e.id <= (select b.high from bounds b)
        ),
        counts as (
            select d.sender, d.day, d.room,
                   count(*) filter (where not d.change and d.message and not d.edit) as messages,
                   count(*) filter (where not d.change and d.message and d.edit) as edits,
                   count(*) filter (where not d.change and d.reaction) as reactions,
                   count(*) filter (where d.change) as changes
            from done d
            where d.change or d.message or d.reaction
            group by d.sender, d.day, d.room
        ),
        -- Who is counted the first time that day, in the room and on the server: looked at before the rows below are there.
        marked as materialized (
            select c.sender, c.day, c.room, c.messages, c.edits, c.reactions, c.changes,
                   not exists (select from activity.users u where u.sender = c.sender and u.day = c.day and u.room = c.room) as in_room,
                   not exists (select from activity.users u where u.sender = c.sender and u.day = c.day) as on_server,
                   not exists (select from activity.rooms r where r.room = c.room and r.day = c.day) as new_room
            from counts c
        ),
        by_user as (
            insert into activity.users as u (sender, day, room, messages, edits, reactions, changes)
            select m.sender, m.day, m.room, m.messages, m.edits, m.reactions, m.changes
            from marked m
            order by m.sender, m.day, m.room
            on conflict (sender, day, room) do update
            set messages = u.messages + excluded.messages, edits = u.edits + excluded.edits,
                reactions = u.reactions + excluded.reactions, changes = u.changes + excluded.changes
        ),
        by_room as (
            insert into activity.rooms as r (room, day, messages, edits, reactions, changes, senders)
            select m.room, m.day, sum(m.messages), sum(m.edits), sum(m.reactions), sum(m.changes), count(*) filter (where m.in_room)
            from marked m
            group by m.room, m.day
            order by m.room, m.day
            on conflict (room, day) do update
            set messages = r.messages + excluded.messages, edits = r.edits + excluded.edits,
                reactions = r.reactions + excluded.reactions, changes = r.changes + excluded.changes,
                senders = r.senders + excluded.senders
        ),
        by_day as (
            insert into activity.days as d (day, messages, edits, reactions, changes, senders, rooms)
            select m.day, sum(m.messages), sum(m.edits), sum(m.reactions), sum(m.changes),
                   count(distinct m.sender) filter (where m.on_server), count(distinct m.room) filter (where m.new_room)
            from marked m
            group by m.day
            order by m.day
            on conflict (day) do update
            set messages = d.messages + excluded.messages, edits = d.edits + excluded.edits,
                reactions = d.reactions + excluded.reactions, changes = d.changes + excluded.changes,
                senders = d.senders + excluded.senders, rooms = d.rooms + excluded.rooms
        )
        select count(*) into counted from marked;
        update eventlog.positions a
        set position = at.upto, moved_at = now()
        where a.component = 'activity' and a.shard = at.shard;
        folded := folded + (at.upto - at.position)::integer;
    end loop;
    return folded;
end
$$;
comment on function activity.fold_v1(integer) is 'Counts at most so many outputs of each shard into the tables of schema activity; returns how many. Called by maintenance until it returns 0.';

-- A room that is purged takes its counts with it.
create function activity.forget_room() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    with gone as (
        delete from activity.users u where u.room = old.nid
        returning u.sender, u.day, u.messages, u.edits, u.reactions, u.changes
    ),
    gone_rooms as (
        delete from activity.rooms r where r.room = old.nid
    ),
    less as (
        select g.day, sum(g.messages) as messages, sum(g.edits) as edits, sum(g.reactions) as reactions, sum(g.changes) as changes,
               count(*) filter (where not exists (
                   select from activity.users u where u.sender = g.sender and u.day = g.day and u.room <> old.nid)) as senders
        from gone g
        group by g.day
    )
    update activity.days d
    set messages = d.messages - l.messages, edits = d.edits - l.edits, reactions = d.reactions - l.reactions,
        changes = d.changes - l.changes, senders = d.senders - l.senders, rooms = d.rooms - 1
    from less l
    where d.day = l.day;
    return null;
end
$$;
comment on function activity.forget_room() is 'Takes the counts of a purged room away.';

create trigger forget_activity after delete on roomserver.rooms
for each row execute function activity.forget_room();
