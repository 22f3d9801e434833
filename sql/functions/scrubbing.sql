-- Taking single things out of the log: content that was redacted, history that was purged, what a person wants erased. Called by
-- readers/retention alone, in parts of some hundred rows; eventlog.erasures says who asked for it. State snapshots are rows that
-- name events and hold no content: none of these functions touches one, but for a room that goes as a whole.
create function eventlog.scrub(entries bigint[], documents text[]) returns integer
language plpgsql volatile security definer
set search_path = 'eventlog_scrubbing'
as $$
declare
    changed integer;
begin
    -- What an event relates to is content, and a rebuild does not find it any more.
    delete from roomserver.relations l
    using eventlog.events e
    join unnest(entries, documents) as d (entry, document) on d.entry = e.id
    where e.kind in ('s', 'm') and position('"m.relates_to":' in e.json) > 0 and position('"m.relates_to":' in d.document) = 0
      and l.target = history.json_text(e.json, 'content', 'm.relates_to', 'event_id') and l.entry = e.id;
    update eventlog.events e
    set json = d.document
    from unnest(entries, documents) as d (entry, document)
    where e.id = d.entry and e.kind in ('s', 'm') and e.json <> d.document;
    get diagnostics changed = row_count;
    delete from search.documents d where d.entry = any (entries);
    return changed;
end
$$;
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
comment on function roomserver.purge_room(text, integer) is 'Removes the next part of what the room server''s tables have of a room; 0 when the room itself has gone.';

create function roomserver.purge_user(of_user text) returns void
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    delete from roomserver.account_data x where x.user_id = of_user;
    delete from roomserver.profiles x where x.user_id = of_user;
    delete from roomserver.receipts x where x.user_id = of_user;
    delete from roomserver.presence x where x.user_id = of_user;
    delete from roomserver.user_keys x where x.user_id = of_user;
    delete from roomserver.to_device x where x.user_id = of_user;
    delete from userdirectory.users x where x.user_id = of_user;
end
$$;
comment on function roomserver.purge_user(text) is 'Removes the last values of a user: account data, profile, receipts, presence, keys, messages to devices.';
