-- Positions and moments. An output has no time of its own: what it judges was appended at a moment, which the entry's id holds.
-- A state change mostly takes effect with the output of the very event it is due to; one by a resolution, with that of the event
-- that joined the branches.
create function history.change_time(of_shard smallint, at_position bigint, due_to bigint) returns timestamptz
language sql stable parallel safe security definer
set search_path = ''
return case
    when exists (select from eventlog.outputs o where o.entry = due_to and o.kind = 's' and o.position = at_position)
        then eventlog.entry_time(due_to)
    else (
        select eventlog.entry_time(o.entry)
        from eventlog.outputs o
        where o.shard = of_shard and o.position = at_position and o.kind in ('s', 'm')
        limit 1)
    end;
comment on function history.change_time(smallint, bigint, bigint) is 'When a state change at a position of a shard took effect; due_to is the entry it is mostly due to, or null.';

create function history.sent_time(document text) returns timestamptz
language sql immutable parallel safe
return to_timestamp(
    greatest(-62135596800000, least(253402300799999, history.json_text(document, 'origin_server_ts')::numeric)) / 1000);
comment on function history.sent_time(text) is 'When an event was sent, as its sender''s server says; kept within the years 1 to 9999.';
