-- Retention and erasure: what the logs lose, how, and the record of it.
create table eventlog.edges (
    kind "char" not null check (kind in ('m', 'u')),
    shard smallint not null,
    entry bigint not null,
    position bigint not null,
    primary key (kind, shard)
);
comment on table eventlog.edges is 'Where the logs begin since partitions were dropped: before it only what was kept is there.';
comment on column eventlog.edges.kind is 'Kind of the entries: m or u.';
comment on column eventlog.edges.shard is 'Shard of the log.';
comment on column eventlog.edges.entry is 'Entries with a smaller id are gone, except for what was kept.';
comment on column eventlog.edges.position is 'Greatest output position among what was dropped.';

create table eventlog.erasures (
    id bigint generated always as identity primary key,
    action text collate "C" not null check (action in ('partition', 'policy', 'history', 'room', 'redactions', 'user')),
    subject text collate "C" not null,
    requested_by text collate "C" not null,
    detail text not null default '{}',
    events bigint not null default 0,
    kept bigint not null default 0,
    bytes bigint not null default 0,
    began_at timestamptz not null default now(),
    ended_at timestamptz
);
create index erasures_unfinished on eventlog.erasures (action, subject) where ended_at is null;
create index erasures_began on eventlog.erasures (began_at);
comment on table eventlog.erasures is 'What was taken out of the log, by whom and when. Automatic scrubbing has a row a day.';
comment on column eventlog.erasures.id is 'Number of the record.';
comment on column eventlog.erasures.action is 'partition: dropped by age; policy: older than a room''s m.room.retention allows; history, room: purged on request; redactions: content scrubbed after its delay; user: erased on request.';
comment on column eventlog.erasures.subject is 'What it was done to: a partition, a room id, a user id; empty for redactions of all rooms.';
comment on column eventlog.erasures.requested_by is 'Login name of the person who asked for it, or maintenance.';
comment on column eventlog.erasures.detail is 'JSON object: what was asked for.';
comment on column eventlog.erasures.events is 'Entries removed or scrubbed.';
comment on column eventlog.erasures.kept is 'Entries of them that stayed, for something else needs them.';
comment on column eventlog.erasures.bytes is 'Bytes of disk that were freed at once; 0 where rows were removed, whose space is used again.';
comment on column eventlog.erasures.began_at is 'When it began.';
comment on column eventlog.erasures.ended_at is 'When it was done; null while it runs, or was broken off and will be taken up again.';

alter table roomserver.redactions add column scrubbed boolean not null default false;
create index redactions_unscrubbed on roomserver.redactions (entry) where not scrubbed;
comment on column roomserver.redactions.scrubbed is 'The content of the redacted event is gone from the log.';

create or replace function eventlog.refuse_edit() returns trigger
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

create or replace function eventlog.drop_ephemeral(older interval default '3 days') returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    name text;
    dropped integer := 0;
begin
    perform set_config('lock_timeout', '25ms', true);
    for name in
        select c.relname
        from pg_catalog.pg_inherits i
        join pg_catalog.pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'eventlog.outputs_e'::regclass and c.relname ~ '^outputs_e_[0-9]{8}$'
          and to_date(right(c.relname, 8), 'yyyymmdd') + 1 <= ((now() - older) at time zone 'utc')
        order by c.relname
    loop
        execute format('drop table eventlog.%I', name);
        dropped := dropped + 1;
    end loop;
    return dropped;
end
$$;

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
        execute format('delete from eventlog.%I where %I < %s', format('%s_%s_default', log.name, of_kind), log.key, before);
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

-- Taking single things out of the log: content that was redacted, history that was purged, what a person wants erased. Called by
-- readers/retention alone, in parts of some hundred rows; eventlog.erasures says who asked for it. State snapshots are rows that
-- name events and hold no content: none of these functions touches one, but for a room that goes as a whole.
create function eventlog.scrub(entries bigint[], documents text[]) returns integer
language sql volatile security definer
set search_path = 'eventlog_scrubbing'
begin atomic
    with scrubbed as (
        update eventlog.events e
        set json = d.document
        from unnest(entries, documents) as d (entry, document)
        where e.id = d.entry and e.kind in ('s', 'm') and e.json <> d.document
        returning 1
    )
    select count(*)::integer from scrubbed;
end;
comment on function eventlog.scrub(bigint[], text[]) is 'Puts scrubbed events in the place of events; returns how many were changed. The caller has taken nothing but content away.';

create function eventlog.scrub_notes(entries bigint[], annotations text[]) returns integer
language sql volatile security definer
set search_path = 'eventlog_scrubbing'
begin atomic
    with scrubbed as (
        update eventlog.outputs o
        set annotation = d.annotation
        from unnest(entries, annotations) as d (entry, annotation)
        where o.entry = d.entry and o.kind in ('s', 'm') and o.annotation <> d.annotation
        returning 1
    )
    select count(*)::integer from scrubbed;
end;
comment on function eventlog.scrub_notes(bigint[], text[]) is 'Puts scrubbed annotations in the place of annotations: an output repeats the content of the state event it replaced.';

create function roomserver.redactions_scrubbed(targets text[]) returns void
language sql volatile security definer
set search_path = ''
begin atomic
    update roomserver.redactions d set scrubbed = true where d.target = any (targets);
end;
comment on function roomserver.redactions_scrubbed(text[]) is 'Notes that the content of redacted events is gone.';

-- Entries with all that the side tables have of them. The log's own rows go last: they say what the others are.
create function eventlog.remove_entries(of_kind "char", entries bigint[]) returns integer
language plpgsql volatile security definer
set search_path = 'eventlog_scrubbing'
as $$
declare
    removed integer;
begin
    delete from roomserver.relations l
    using eventlog.events e
    where e.id = any (entries) and e.kind = of_kind and position('"m.relates_to":' in e.json) > 0
      and l.target = history.json_text(e.json, 'content', 'm.relates_to', 'event_id') and l.entry = e.id;
    delete from eventlog.event_keys k
    using eventlog.events e
    where e.id = any (entries) and e.kind = of_kind and k.key = eventlog.event_key(e.event_id) and k.id = e.id;
    -- A redaction is noted for as long as it or its target is in the log: noted too briefly, it would be undone by a rebuild.
    delete from roomserver.redactions d
    using eventlog.events e
    where e.id = any (entries) and e.kind = of_kind and d.target = e.event_id
      and (d.entry = any (entries) or not exists (select from eventlog.events x where x.id = d.entry));
    delete from roomserver.redactions d
    using eventlog.events e
    where e.id = any (entries) and e.kind = of_kind and e.type = 'm.room.redaction' and d.entry = e.id
      and d.target = coalesce(history.json_text(e.json, 'redacts'), history.json_text(e.json, 'content', 'redacts'))
      and not exists (select from eventlog.event_keys k where k.key = eventlog.event_key(d.target));
    delete from eventlog.outputs o where o.entry = any (entries) and o.kind = of_kind;
    delete from eventlog.events e where e.id = any (entries) and e.kind = of_kind;
    get diagnostics removed = row_count;
    return removed;
end
$$;
comment on function eventlog.remove_entries("char", bigint[]) is 'Removes entries of a kind, their outputs, and what side tables have of them; returns how many.';

-- The same reasons as eventlog.survivors(), looked at event by event.
create function eventlog.purgeable(of_room bigint, before bigint, after bigint, most integer)
returns table (entry bigint, timeline bigint, stays boolean)
language plpgsql stable security definer
set search_path = ''
as $$
#variable_conflict use_column
begin
    return query
    select o.entry, o.timeline,
           o.position = h.position or e.event_id = any (h.extremities) or e.event_id is not distinct from t.event_id
           or e.seq is not distinct from h.judged_seq or coalesce(position('"state":' in o.annotation) > 0, false)
           or (position('"redacts":' in o.annotation) > 0
               and exists (select from eventlog.event_keys k
                           where k.key = eventlog.event_key(history.json_text(o.annotation, 'redacts'))))
    from (
        select p.entry, p.timeline, p.position, p.annotation
        from eventlog.outputs p
        where p.room = of_room and p.kind = 'm' and p.timeline > after and p.entry < before
        order by p.timeline
        limit most
    ) o
    join eventlog.events e on e.id = o.entry and e.kind = 'm'
    join roomserver.rooms n on n.nid = of_room
    join roomserver.heads h on h.room = of_room
    left join eventlog.tips t on t.room_id = n.room_id
    order by o.timeline;
end
$$;
comment on function eventlog.purgeable(bigint, bigint, bigint, integer) is 'The next messages of a room after a place in its timeline that came before an entry id, and whether something else needs each.';

create function roomserver.purge_room(of_room text, most integer) returns bigint
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    number bigint := (select n.nid from roomserver.rooms n where n.room_id = of_room);
    removed bigint := 0;
    part bigint;
    name text;
begin
    -- What refers to the room goes first, a part at a time; then the room, and with it what makes it one.
    if number is not null then
        foreach name in array array['receipts', 'resolutions', 'lines', 'state'] loop
            execute format('delete from roomserver.%1$I x where x.ctid = any (array('
                'select y.ctid from roomserver.%1$I y where y.room = $1 limit $2))', name)
            using number, most;
            get diagnostics part = row_count;
            removed := removed + part;
        end loop;
    end if;
    delete from roomserver.account_data x where x.ctid = any (array(
        select y.ctid from roomserver.account_data y where y.room_id = of_room limit most));
    get diagnostics part = row_count;
    removed := removed + part;
    if removed = 0 then
        delete from roomserver.aliases x where x.room_id = of_room;
        delete from roomserver.directory x where x.room_id = of_room;
        delete from roomserver.deferred x where x.room_id = of_room;
        delete from roomserver.quarantine x where x.room_id = of_room;
        delete from eventlog.tips x where x.room_id = of_room;
        delete from roomserver.memberships x where x.room = number;
        delete from roomserver.heads x where x.room = number;
        delete from roomserver.rooms x where x.nid = number;
    end if;
    return removed;
end
$$;
comment on function roomserver.purge_room(text, integer) is 'Removes the next part of what the room server''s tables have of a room; 0 when the room itself has gone.';

create function roomserver.purge_user(of_user text) returns void
language sql volatile security definer
set search_path = ''
begin atomic
    delete from roomserver.account_data x where x.user_id = of_user;
    delete from roomserver.profiles x where x.user_id = of_user;
    delete from roomserver.receipts x where x.user_id = of_user;
end;
comment on function roomserver.purge_user(text) is 'Removes the last values of a user: account data, profile, receipts.';
