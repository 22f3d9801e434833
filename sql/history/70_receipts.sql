create view history.receipts as
select r.room_id,
       c.user_id,
       c.receipt_type,
       nullif(c.thread_id, '') as thread,
       c.event_id,
       to_timestamp(greatest(-62135596800000, least(253402300799999, c.ts)) / 1000.0) as read_at,
       c.event_position as place,
       c.position as change,
       c.room
from roomserver.receipts c
join roomserver.rooms r on r.nid = c.room;
comment on view history.receipts is 'How far everyone has read: the last receipt of each user, room, type and thread. For one room, history.receipts_of(room_id).';
comment on column history.receipts.room_id is 'Matrix room id.';
comment on column history.receipts.user_id is 'Whose.';
comment on column history.receipts.receipt_type is 'm.read, or m.read.private, which others are not shown.';
comment on column history.receipts.thread is 'Event id of the thread''s first message, main for what is in no thread, null for everything.';
comment on column history.receipts.event_id is 'The event read up to.';
comment on column history.receipts.read_at is 'When the receipt was sent.';
comment on column history.receipts.place is 'That event''s order in the room''s timeline: a message at or before it was read. Null if it is not known here.';
comment on column history.receipts.change is 'Order of the receipts among themselves.';
comment on column history.receipts.room is 'The room''s number: history.rooms.room.';

create function history.receipts_of(of_room text) returns setof history.receipts
language sql stable parallel restricted
begin atomic
    select m.room_id, m.user_id, m.receipt_type, m.thread, m.event_id, m.read_at, m.place, m.change, m.room
    from history.receipts m
    where m.room = history.room_number(of_room);
end;
comment on function history.receipts_of(text) is 'The receipts in one room: order by change desc limit 50 reads the last fifty.';
