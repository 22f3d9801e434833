-- A relation goes with the content that says it: projections are what a rebuild makes of the log.
create or replace function eventlog.scrub(entries bigint[], documents text[]) returns integer
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
