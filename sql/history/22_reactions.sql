-- Reactions that stand: one that was taken back, or whose message was, is no row.
create view history.reactions as
select l.target as event_id,
       r.room_id,
       e.sender,
       history.json_text(e.json, 'content', 'm.relates_to', 'key') as key,
       history.sent_time(e.json) as reacted_at,
       eventlog.entry_time(e.id) as received_at,
       l.event_id as reaction_event_id,
       l.timeline as place,
       l.room
from roomserver.relations l
join roomserver.rooms r on r.nid = l.room
join eventlog.events e on e.id = l.entry and e.kind = 'm'
where l.rel_type = 'm.annotation'
  -- Said so that the planner does not take what stands for rare: a page is to be read in order.
  and coalesce(e.type = 'm.reaction', false)
  and coalesce((select false from roomserver.redactions x where x.target = l.event_id), true)
  and coalesce((select false from roomserver.redactions x where x.target = l.target), true);
comment on view history.reactions is 'Every reaction that stands. For one room, history.reactions_of(room_id); to one message, where event_id = ….';
comment on column history.reactions.event_id is 'The message reacted to.';
comment on column history.reactions.room_id is 'Room it was in.';
comment on column history.reactions.sender is 'Who reacted.';
comment on column history.reactions.key is 'With what: mostly an emoji.';
comment on column history.reactions.reacted_at is 'When, as the sender''s server says.';
comment on column history.reactions.received_at is 'When it was appended to the log here.';
comment on column history.reactions.reaction_event_id is 'Event id of the reaction.';
comment on column history.reactions.place is 'Order in the room''s timeline; negative for history that was fetched later.';
comment on column history.reactions.room is 'The room''s number: history.rooms.room.';

create function history.reactions_of(of_room text) returns setof history.reactions
language sql stable parallel restricted
begin atomic
    select m.event_id, m.room_id, m.sender, m.key, m.reacted_at, m.received_at, m.reaction_event_id, m.place, m.room
    from history.reactions m
    where m.room = history.room_number(of_room);
end;
comment on function history.reactions_of(text) is 'The reactions in one room: order by place desc limit 50 reads fifty of them.';
