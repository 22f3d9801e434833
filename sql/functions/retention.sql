-- Dropping old partitions of the log. Their survivors are copied first, some hundred rows a transaction; then one short transaction
-- takes the partitions out and puts the table of survivors in their place; what was taken out is forgotten by the side tables, and
-- dropped, while nobody waits for it. Each step can be broken off and taken up again. `walden maintenance` leads (readers/retention.py).

-- Oldest first, up to the first that must wait.
create function eventlog.expired_spans(of_kind "char", before bigint)
returns table (label text, low bigint, high bigint, waits_for text)
language plpgsql stable security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
    parent text := case when of_kind = 'e' then 'outputs_e' else 'events_' || of_kind::text end;
    span record;
    unjudged boolean;
    consumer record;
    passed bigint;
begin
    for span in
        select right(c.relname, 8) as label, b.bounds[1]::bigint as low, b.bounds[2]::bigint as high
        from pg_catalog.pg_inherits i
        join pg_catalog.pg_class c on c.oid = i.inhrelid
        cross join lateral regexp_match(pg_catalog.pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?(\d+)''?\) TO \(''?(\d+)''?\)')
            as b (bounds)
        where i.inhparent = format('eventlog.%I', parent)::regclass and c.relname ~ format('^%s_[0-9]{8}$', parent)
        order by 2
    loop
        exit when span.high > before;
        label := span.label;
        low := span.low;
        high := span.high;
        waits_for := null;
        for consumer in select p.component, p.shard, p.position from eventlog.positions p loop
            execute format('select max(o.position) from eventlog.%I o where o.shard = $1', format('outputs_%s_%s', of_kind, label))
            into passed using consumer.shard;
            if consumer.position < passed then
                waits_for := format('%s of shard %s is at %s', consumer.component, consumer.shard, consumer.position);
            end if;
        end loop;
        if waits_for is null and of_kind <> 'e' then
            execute format('select exists (select from eventlog.%I e where not exists (select from eventlog.%I o where o.entry = e.id))',
                format('events_%s_%s', of_kind, label), format('outputs_%s_%s', of_kind, label))
            into unjudged;
            if unjudged or exists (select from roomserver.deferred d where d.entry >= span.low and d.entry < span.high) then
                waits_for := 'the room server has not judged all of it';
            end if;
        end if;
        return next;
        exit when waits_for is not null;
    end loop;
end
$$;
comment on function eventlog.expired_spans("char", bigint) is 'Partitions of a kind that hold nothing from an entry id on, oldest first up to the first that waits for a consumer, and what that waits for.';

-- What must outlive its partition: what a room is built on and told by, what explains its state, and what a person has yet to see.
create function eventlog.survivors(of_kind "char", before bigint, rooms bigint[]) returns setof bigint
language sql stable security definer
set search_path = ''
begin atomic
    select k.id
    from roomserver.heads h
    cross join unnest(h.extremities) as x (event_id)
    join eventlog.event_keys k on k.key = eventlog.event_key(x.event_id)
    where of_kind = 'm' and k.id < before
    union
    select k.id
    from eventlog.tips t
    join eventlog.event_keys k on k.key = eventlog.event_key(t.event_id)
    where of_kind = 'm' and k.id < before
    union
    select o.entry
    from roomserver.heads h
    join roomserver.rooms n on n.nid = h.room
    join eventlog.outputs o on o.shard = n.shard and o.position = h.position and o.kind = 'm'
    where of_kind = 'm' and o.entry < before
    union
    select e.id
    from eventlog.events e
    join roomserver.rooms n on n.room_id = e.room_id
    join roomserver.heads h on h.room = n.nid and h.judged_seq = e.seq
    where of_kind = 'm' and e.kind = 'm' and e.id < before
    union
    select o.entry
    from eventlog.outputs o
    where of_kind = 'm' and o.kind = 'm' and o.entry < before
      and (o.room = any (rooms) or position('"state":' in o.annotation) > 0)
    union
    select d.entry
    from roomserver.redactions d
    join eventlog.event_keys k on k.key = eventlog.event_key(d.target)
    where of_kind = 'm' and d.entry < before
    union
    select q.entry from roomserver.quarantine q where q.entry < before and q.resolved_at is null
    order by 1;
end;
comment on function eventlog.survivors("char", bigint, bigint[]) is 'Entries of a kind before an id that must stay when their partitions are dropped; among them all of some rooms. Some of them may be of another kind.';

create function eventlog.begin_keep(of_kind "char", before bigint) returns void
language plpgsql volatile security definer
set lock_timeout = '25ms'
set search_path = ''
as $$
declare
    log record;
begin
    for log in select v.name, v.key from (values ('events', 'id'), ('outputs', 'entry')) as v (name, key) loop
        execute format('drop table if exists eventlog.%I', format('new_kept_%s_%s', log.name, of_kind));
        execute format('create table eventlog.%I (like eventlog.%I including all)', format('new_kept_%s_%s', log.name, of_kind),
            format('%s_%s', log.name, of_kind));
        -- What attaching would otherwise have to look for, row by row, while everybody waits.
        execute format('alter table eventlog.%I add constraint kept_before check (kind = %L and %I < %s)',
            format('new_kept_%s_%s', log.name, of_kind), of_kind, log.key, before);
    end loop;
end
$$;
comment on function eventlog.begin_keep("char", bigint) is 'Makes the empty tables that what survives of a kind before an id is copied to.';

create function eventlog.keep(of_kind "char", entries bigint[]) returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    copied integer;
begin
    execute format('insert into eventlog.%I select e.* from eventlog.events e where e.id = any ($1) and e.kind = $2'
        ' on conflict do nothing', format('new_kept_events_%s', of_kind))
    using entries, of_kind;
    get diagnostics copied = row_count;
    execute format('insert into eventlog.%I select o.* from eventlog.outputs o where o.entry = any ($1) and o.kind = $2'
        ' on conflict do nothing', format('new_kept_outputs_%s', of_kind))
    using entries, of_kind;
    return copied;
end
$$;
comment on function eventlog.keep("char", bigint[]) is 'Copies entries with their outputs to where they will be kept; returns how many were of the kind.';

-- Whoever appends or reads waits for this, at most as long as it waits for them and then works: hence the short lock_timeout.
create function eventlog.retire(of_kind "char", before bigint, labels text[]) returns void
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
comment on function eventlog.retire("char", bigint, text[]) is 'Takes partitions out of the logs and puts in what was kept of them; fails with 55P03 rather than wait for anybody.';

create function eventlog.retired() returns table (name text)
language sql stable security definer
set search_path = ''
begin atomic
    select c.relname::text
    from pg_catalog.pg_class c
    where c.relnamespace = 'eventlog'::regnamespace and c.relkind = 'r' and c.relname ~ '^retired_'
    order by c.relname;
end;
comment on function eventlog.retired() is 'Tables that were taken out of the logs and are to be dropped.';

create function eventlog.forget_retired(name text, after bigint, most integer)
returns table (last bigint, seen bigint, gone bigint)
language plpgsql volatile security definer
set search_path = 'eventlog_scrubbing'
as $$
declare
    entries bigint[];
    left_over bigint[];
begin
    if name !~ '^retired_(kept_)?events_[mu](_[0-9]{8})?$' then
        raise exception '% is no table of entries that was taken out of the log', name using errcode = '22023';
    end if;
    execute format('select array_agg(b.id order by b.id), array_agg(b.id) filter (where not exists ('
        ' select from eventlog.events e where e.id = b.id and e.kind = b.kind))'
        ' from (select r.id, r.kind from eventlog.%I r where r.id > $1 order by r.id limit $2) b', name)
    into entries, left_over using after, most;
    if entries is null then
        return;
    end if;
    execute format('delete from eventlog.event_keys k using eventlog.%1$I r'
        ' where r.id = any ($1) and k.key = eventlog.event_key(r.event_id) and k.id = r.id', name) using left_over;
    -- A redaction is noted for as long as it or its target is in the log: noted too briefly, it would be undone by a rebuild.
    execute format('delete from roomserver.redactions d using eventlog.%1$I r where r.id = any ($1) and d.target = r.event_id'
        ' and not exists (select from eventlog.events e where e.id = d.entry)', name) using left_over;
    execute format('delete from roomserver.redactions d using eventlog.%1$I r'
        ' where r.id = any ($1) and r.type = ''m.room.redaction'' and d.entry = r.id and d.target = coalesce('
        'history.json_text(r.json, ''redacts''), history.json_text(r.json, ''content'', ''redacts''))'
        ' and not exists (select from eventlog.event_keys k where k.key = eventlog.event_key(d.target))', name) using left_over;
    execute format('delete from roomserver.relations l using eventlog.%1$I r where r.id = any ($1) and l.entry = r.id'
        ' and position(''"m.relates_to":'' in r.json) > 0'
        ' and l.target = history.json_text(r.json, ''content'', ''m.relates_to'', ''event_id'')', name) using left_over;
    execute format('delete from roomserver.early_redactions d using eventlog.%1$I r'
        ' where r.id = any ($1) and r.type = ''m.room.redaction'' and d.redaction = r.event_id and d.target = coalesce('
        'history.json_text(r.json, ''redacts''), history.json_text(r.json, ''content'', ''redacts''))', name) using left_over;
    -- What readers have made of them, and would not show any more.
    delete from search.documents d where d.entry = any (left_over);
    execute format('delete from notifications.notices n using eventlog.%1$I r where r.id = any ($1) and n.event_id = r.event_id',
        name) using left_over;
    execute format('delete from notifications.exceptions n using eventlog.%1$I r where r.id = any ($1) and n.event_id = r.event_id',
        name) using left_over;
    last := entries[cardinality(entries)];
    seen := cardinality(entries);
    gone := coalesce(cardinality(left_over), 0);
    return next;
end
$$;
comment on function eventlog.forget_retired(text, bigint, integer) is 'Removes what side tables have of the next entries of a table that was taken out; returns the last of them and the counts, no row at the end.';

create function eventlog.drop_retired(name text) returns bigint
language plpgsql volatile security definer
set lock_timeout = '25ms'
set search_path = ''
as $$
declare
    bytes bigint;
begin
    if name !~ '^retired_' then
        raise exception '% was not taken out of the log', name using errcode = '22023';
    end if;
    bytes := pg_total_relation_size(format('eventlog.%I', name)::regclass);
    execute format('drop table eventlog.%I', name);
    return bytes;
end
$$;
comment on function eventlog.drop_retired(text) is 'Drops a table that was taken out of the logs; returns the bytes it had.';
