-- Messages as people see them: the latest valid edit in the place of what was sent, redacted ones without their words.
create view history.messages as
select e.event_id,
       r.room_id,
       e.sender,
       history.sent_time(e.json) as sent_at,
       eventlog.entry_time(e.id) as received_at,
       e.type,
       case when x.target is not null or e.type = 'm.room.encrypted' then null
           when edit.event_id is not null then edit.msgtype
           else history.json_text(e.json, 'content', 'msgtype') end as msgtype,
       case when x.target is not null or e.type = 'm.room.encrypted' then null
           when edit.event_id is not null then edit.body
           else history.json_text(e.json, 'content', 'body') end as body,
       e.type = 'm.room.encrypted' as encrypted,
       edit.event_id collate "C" as edit_event_id,
       edit.edited_at,
       x.target is not null as redacted,
       case when x.target is not null then (select n.sender from history.redaction_of(x.target) n) end collate "C" as redacted_by,
       case when x.target is not null then (select n.reason from history.redaction_of(x.target) n) end as redaction_reason,
       case when x.target is null and history.json_text(e.json, 'content', 'm.relates_to', 'rel_type') = 'm.thread'
           then history.json_text(e.json, 'content', 'm.relates_to', 'event_id') end as thread,
       case when x.target is null
           then history.json_text(e.json, 'content', 'm.relates_to', 'm.in_reply_to', 'event_id') end as in_reply_to,
       o.timeline as place,
       o.room
from eventlog.outputs o
join eventlog.events e on e.id = o.entry and e.kind = 'm'
join roomserver.rooms r on r.nid = o.room
left join roomserver.redactions x on x.target = e.event_id
left join lateral history.latest_edit(
    case when exists (select from roomserver.relations l where l.target = e.event_id and l.rel_type = 'm.replace') then e.event_id end,
    o.room, e.sender, e.type) edit on true
where o.kind = 'm' and o.verdict = 'a' and o.timeline is not null
  and e.type in ('m.room.message', 'm.room.encrypted', 'm.sticker')
  and (position('"m.relates_to":' in e.json) = 0
       or history.json_text(e.json, 'content', 'm.relates_to', 'rel_type') is distinct from 'm.replace');
comment on view history.messages is 'Every message, edits and redactions applied. For one room, history.messages_of(room_id) reads a page without looking at the rest.';
comment on column history.messages.event_id is 'Event id.';
comment on column history.messages.room_id is 'Room it was said in.';
comment on column history.messages.sender is 'Who said it.';
comment on column history.messages.sent_at is 'When it was sent, as the sender''s server says.';
comment on column history.messages.received_at is 'When it was appended to the log here.';
comment on column history.messages.type is 'Event type: m.room.message, m.room.encrypted or m.sticker.';
comment on column history.messages.msgtype is 'Kind of message: m.text, m.image and so on; null if encrypted or redacted.';
comment on column history.messages.body is 'The words, of the latest edit; null if encrypted or redacted. NUL reads as U+10FFFF 0.';
comment on column history.messages.encrypted is 'End-to-end encrypted: this server does not know the words.';
comment on column history.messages.edit_event_id is 'Event id of the latest edit; null if there is none.';
comment on column history.messages.edited_at is 'When the latest edit was sent; null if there is none.';
comment on column history.messages.redacted is 'A redaction took the words away.';
comment on column history.messages.redacted_by is 'Who redacted it.';
comment on column history.messages.redaction_reason is 'The reason given for it; null if none was, or the redaction was redacted.';
comment on column history.messages.thread is 'Event id of the message that began the thread it is in; null if in none.';
comment on column history.messages.in_reply_to is 'Event id of the message it answers; null if none.';
comment on column history.messages.place is 'Order in the room''s timeline; negative for history that was fetched later.';
comment on column history.messages.room is 'The room''s number: history.rooms.room.';

-- Inlined by the planner, so that "order by place desc limit 50" reads fifty rows of an index and no more.
create function history.messages_of(of_room text) returns setof history.messages
language sql stable parallel restricted
begin atomic
    select m.event_id, m.room_id, m.sender, m.sent_at, m.received_at, m.type, m.msgtype, m.body, m.encrypted, m.edit_event_id,
           m.edited_at, m.redacted, m.redacted_by, m.redaction_reason, m.thread, m.in_reply_to, m.place, m.room
    from history.messages m
    where m.room = history.room_number(of_room);
end;
comment on function history.messages_of(text) is 'The messages of one room: select sent_at, sender, body from history.messages_of(''!room:server'') order by place desc limit 50.';
