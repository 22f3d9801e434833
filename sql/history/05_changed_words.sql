-- What became of an event's words. Apart from the views, so that a page looks into the log only for messages that were edited or
-- redacted: strict, for a view that has nothing to ask passes null.
-- Specification, "Validity of replacement events": same room, same sender, same type, no state key, the original is no edit itself,
-- m.new_content is there; the most recent by origin_server_ts, then by the greatest event id.
create function history.latest_edit(of_event text, in_room bigint, by_sender text, of_type text)
returns table (event_id text, msgtype text, body text, edited_at timestamptz)
language sql stable strict parallel safe rows 1 security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
begin atomic
    select n.event_id,
           case when n.type <> 'm.room.encrypted' then history.json_text(n.json, 'content', 'm.new_content', 'msgtype') end,
           case when n.type <> 'm.room.encrypted' then history.json_text(n.json, 'content', 'm.new_content', 'body') end,
           history.sent_time(n.json)
    from roomserver.relations l
    join eventlog.events n on n.id = l.entry and n.kind = 'm'
    where l.target = of_event and l.rel_type = 'm.replace' and l.room = in_room
      and n.sender = by_sender and n.type = of_type
      and (n.type = 'm.room.encrypted' or json_typeof(history.safe_json(n.json) #> '{content,m.new_content}') = 'object')
      and not exists (select from roomserver.redactions x where x.target = of_event)
      and not exists (select from roomserver.redactions y where y.target = n.event_id)
    order by history.sent_time(n.json) desc, n.event_id desc
    limit 1;
end;
comment on function history.latest_edit(text, bigint, text, text) is 'The latest valid edit of a message that stands: by the same sender, of the same type, in the same room.';

create function history.redaction_of(of_event text)
returns table (event_id text, sender text, reason text, redacted_at timestamptz)
language sql stable parallel safe rows 1 security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
begin atomic
    select x.redaction, e.sender,
           case when not exists (select from roomserver.redactions y where y.target = x.redaction)
               then history.json_text(e.json, 'content', 'reason') end,
           eventlog.entry_time(e.id)
    from roomserver.redactions x
    join eventlog.events e on e.id = x.entry and e.kind in ('s', 'm')
    where x.target = of_event;
end;
comment on function history.redaction_of(text) is 'The redaction that took an event''s words away, with the reason given unless that was redacted too.';
