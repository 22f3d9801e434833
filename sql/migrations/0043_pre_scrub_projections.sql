-- What leaves the log leaves what readers have made of it as well.
create or replace function eventlog.forget_retired(name text, after bigint, most integer)
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

create or replace function eventlog.scrub(entries bigint[], documents text[]) returns integer
language plpgsql volatile security definer
set search_path = 'eventlog_scrubbing'
as $$
declare
    changed integer;
begin
    update eventlog.events e
    set json = d.document
    from unnest(entries, documents) as d (entry, document)
    where e.id = d.entry and e.kind in ('s', 'm') and e.json <> d.document;
    get diagnostics changed = row_count;
    delete from search.documents d where d.entry = any (entries);
    return changed;
end
$$;

create or replace function eventlog.remove_entries(of_kind "char", entries bigint[]) returns integer
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
    delete from roomserver.early_redactions d
    using eventlog.events e
    where e.id = any (entries) and e.kind = of_kind and e.type = 'm.room.redaction' and d.redaction = e.event_id
      and d.target = coalesce(history.json_text(e.json, 'redacts'), history.json_text(e.json, 'content', 'redacts'));
    -- What readers have made of them, and would not show any more.
    delete from search.documents d where d.entry = any (entries);
    delete from notifications.notices n
    using eventlog.events e
    where e.id = any (entries) and e.kind = of_kind and n.event_id = e.event_id;
    delete from notifications.exceptions n
    using eventlog.events e
    where e.id = any (entries) and e.kind = of_kind and n.event_id = e.event_id;
    delete from eventlog.outputs o where o.entry = any (entries) and o.kind = of_kind;
    delete from eventlog.events e where e.id = any (entries) and e.kind = of_kind;
    get diagnostics removed = row_count;
    return removed;
end
$$;

create or replace function roomserver.purge_room(of_room text, most integer) returns bigint
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
        delete from roomserver.reports x where x.room_id = of_room;
        delete from userdirectory.public_rooms x where x.room = number;
        delete from eventlog.tips x where x.room_id = of_room;
        delete from roomserver.memberships x where x.room = number;
        delete from roomserver.heads x where x.room = number;
        delete from roomserver.rooms x where x.nid = number;
    end if;
    return removed;
end
$$;

create or replace function roomserver.purge_user(of_user text) returns void
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    delete from roomserver.account_data x where x.user_id = of_user;
    delete from roomserver.profiles x where x.user_id = of_user;
    delete from roomserver.receipts x where x.user_id = of_user;
    delete from userdirectory.users x where x.user_id = of_user;
end
$$;
