-- Threads by the order in which their first replies came.
create view history.threads as
select t.root as event_id,
       r.room_id,
       e.sender,
       history.sent_time(e.json) as sent_at,
       case when x.target is not null or e.type = 'm.room.encrypted' then null
           when edit.event_id is not null then edit.body
           else history.json_text(e.json, 'content', 'body') end as body,
       coalesce(e.type = 'm.room.encrypted', false) as encrypted,
       eventlog.entry_time(t.entry) as began_at,
       (select count(*)
        from roomserver.relations l
        where l.target = t.root and l.rel_type = 'm.thread' and l.room = t.room
          and not exists (select from roomserver.redactions y where y.target = l.event_id)) as replies,
       eventlog.entry_time(last.entry) as last_reply_at,
       last.event_id as last_reply,
       t.begun as place,
       t.room
from roomserver.threads t
join roomserver.rooms r on r.nid = t.room
left join eventlog.event_keys i on i.key = eventlog.event_key(t.root)
left join eventlog.outputs o on o.entry = i.id and o.kind in ('s', 'm') and o.verdict = 'a'
left join eventlog.events e on e.id = o.entry and e.kind = o.kind and e.kind in ('s', 'm') and e.event_id = t.root
left join roomserver.redactions x on x.target = t.root
left join lateral history.latest_edit(
    case when exists (select from roomserver.relations l where l.target = t.root and l.rel_type = 'm.replace') then t.root end,
    t.room, e.sender, e.type) edit on true
left join lateral (
    select l.entry, l.event_id
    from roomserver.relations l
    where l.target = t.root and l.rel_type = 'm.thread' and l.room = t.room
      and coalesce((select false from roomserver.redactions y where y.target = l.event_id), true)
    order by l.timeline desc
    limit 1
) last on true;
comment on view history.threads is 'Every thread. For one room, history.threads_of(room_id); what was said in one, history.messages where thread = ….';
comment on column history.threads.event_id is 'The message that began it.';
comment on column history.threads.room_id is 'Room it is in.';
comment on column history.threads.sender is 'Who said that message; null if it is not known here.';
comment on column history.threads.sent_at is 'When it was sent, as the sender''s server says; null if it is not known here.';
comment on column history.threads.body is 'Its words, of the latest edit; null if encrypted, redacted or not known here.';
comment on column history.threads.encrypted is 'It is end-to-end encrypted: this server does not know the words.';
comment on column history.threads.began_at is 'When the first reply that is known here was appended to the log.';
comment on column history.threads.replies is 'Number of replies that stand.';
comment on column history.threads.last_reply_at is 'When the last of them was appended to the log here.';
comment on column history.threads.last_reply is 'Event id of the last of them.';
comment on column history.threads.place is 'Order of the first reply in the room''s timeline.';
comment on column history.threads.room is 'The room''s number: history.rooms.room.';

create function history.threads_of(of_room text) returns setof history.threads
language sql stable parallel restricted
begin atomic
    select m.event_id, m.room_id, m.sender, m.sent_at, m.body, m.encrypted, m.began_at, m.replies, m.last_reply_at, m.last_reply,
           m.place, m.room
    from history.threads m
    where m.room = history.room_number(of_room);
end;
comment on function history.threads_of(text) is 'The threads of one room: order by place desc limit 50 reads the fifty that began last.';

create view history.thread_replies as
select l.target as event_id,
       (select r.room_id from roomserver.rooms r where r.nid = l.room) as room_id,
       l.event_id as reply,
       l.timeline as place,
       l.room
from roomserver.relations l
where l.rel_type = 'm.thread';
comment on view history.thread_replies is 'Which messages are in which thread, also redacted ones: history.replies_in(event_id) gives their words.';
comment on column history.thread_replies.event_id is 'The message that began the thread.';
comment on column history.thread_replies.room_id is 'Room it is in.';
comment on column history.thread_replies.reply is 'Event id of the reply.';
comment on column history.thread_replies.place is 'The reply''s order in the room''s timeline.';
comment on column history.thread_replies.room is 'The room''s number: history.rooms.room.';

create function history.replies_in(thread_root text) returns setof history.messages
language sql stable parallel restricted
begin atomic
    select m.event_id, m.room_id, m.sender, m.sent_at, m.received_at, m.type, m.msgtype, m.body, m.encrypted, m.edit_event_id,
           m.edited_at, m.redacted, m.redacted_by, m.redaction_reason, m.thread, m.in_reply_to, m.place, m.room
    from history.thread_replies t
    join history.messages m on m.room = t.room and m.place = t.place
    where t.event_id = thread_root;
end;
comment on function history.replies_in(text) is 'What was said in the thread that a message began: order by place limit 50.';
