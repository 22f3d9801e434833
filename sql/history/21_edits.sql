-- What messages said after each edit. Only valid edits, as for history.messages; a redacted one is told, without its words.
create view history.edits as
select l.target as event_id,
       r.room_id,
       e.sender,
       l.event_id as edit_event_id,
       history.sent_time(e.json) as edited_at,
       eventlog.entry_time(e.id) as received_at,
       case when x.target is null and y.target is null and e.type <> 'm.room.encrypted'
           then history.json_text(e.json, 'content', 'm.new_content', 'msgtype') end as msgtype,
       case when x.target is null and y.target is null and e.type <> 'm.room.encrypted'
           then history.json_text(e.json, 'content', 'm.new_content', 'body') end as body,
       case when y.target is null and e.type <> 'm.room.encrypted' then history.json_text(t.json, 'content', 'body') end as original_body,
       e.type = 'm.room.encrypted' as encrypted,
       x.target is not null or y.target is not null as redacted,
       l.timeline as place,
       l.room
from roomserver.relations l
join roomserver.rooms r on r.nid = l.room
join eventlog.events e on e.id = l.entry and e.kind = 'm'
left join roomserver.redactions x on x.target = l.event_id
left join roomserver.redactions y on y.target = l.target
left join eventlog.event_keys i on i.key = eventlog.event_key(l.target)
left join eventlog.events t on t.id = i.id and t.kind = 'm' and t.event_id = l.target
left join eventlog.outputs o on o.entry = i.id and o.kind = 'm'
where l.rel_type = 'm.replace'
  -- Said so that the planner does not take edits for rare: almost all are valid, and a page is to be read in order.
  and coalesce(e.sender = t.sender and e.type = t.type and e.room_id = t.room_id and o.verdict = 'a'
               and history.json_text(t.json, 'content', 'm.relates_to', 'rel_type') is distinct from 'm.replace'
               and (e.type = 'm.room.encrypted'
                    or json_typeof(history.safe_json(e.json) #> '{content,m.new_content}') = 'object'), false);
comment on view history.edits is 'Every edit of a message. For one room, history.edits_of(room_id); for one message, where event_id = ….';
comment on column history.edits.event_id is 'The message that was edited.';
comment on column history.edits.room_id is 'Room it was said in.';
comment on column history.edits.sender is 'Who said it, and edited it: nobody else can.';
comment on column history.edits.edit_event_id is 'Event id of the edit.';
comment on column history.edits.edited_at is 'When it was edited, as the sender''s server says.';
comment on column history.edits.received_at is 'When the edit was appended to the log here.';
comment on column history.edits.msgtype is 'Kind of message after it; null if encrypted or redacted.';
comment on column history.edits.body is 'The words after it; null if encrypted or redacted.';
comment on column history.edits.original_body is 'The words before any edit; null if encrypted or redacted.';
comment on column history.edits.encrypted is 'End-to-end encrypted: this server does not know the words.';
comment on column history.edits.redacted is 'A redaction took the words away: of the edit, or of the message.';
comment on column history.edits.place is 'Order in the room''s timeline; negative for history that was fetched later.';
comment on column history.edits.room is 'The room''s number: history.rooms.room.';

create function history.edits_of(of_room text) returns setof history.edits
language sql stable parallel restricted
begin atomic
    select m.event_id, m.room_id, m.sender, m.edit_event_id, m.edited_at, m.received_at, m.msgtype, m.body, m.original_body,
           m.encrypted, m.redacted, m.place, m.room
    from history.edits m
    where m.room = history.room_number(of_room);
end;
comment on function history.edits_of(text) is 'The edits in one room: order by place desc limit 50 reads fifty of them.';
