-- What stood where, and nothing else: for looking at spans without looking at events.
create view history.state_spans as
select s.room, s.line, s.type, s.state_key,
       (select e.event_id from eventlog.events e where e.id = s.entry and e.kind = 's') as event_id,
       s.valid_from as place, s.valid_to as until_place
from roomserver.state s;
comment on view history.state_spans is 'Which event stood under which key of a room''s state, from which place of the timeline to which. For people there is history.state_changes.';
comment on column history.state_spans.room is 'The room''s number: history.rooms.room.';
comment on column history.state_spans.line is '0 for the room''s state; others belong to events that were off its main line.';
comment on column history.state_spans.type is 'Event type.';
comment on column history.state_spans.state_key is 'State key.';
comment on column history.state_spans.event_id is 'The state event; null where a line says that there is none.';
comment on column history.state_spans.place is 'Place in the room''s timeline from which it stood.';
comment on column history.state_spans.until_place is 'Place from which something else stood; 9223372036854775807 while it stands.';

create view history.resolutions as
select x.room, x.position as place, x.purpose, x.algorithm, x.resolved_at, history.safe_json(x.inputs)::jsonb as inputs,
       history.safe_json(x.outcome)::jsonb as outcome
from roomserver.resolutions x;
comment on view history.resolutions is 'Every state resolution that had a conflict to decide. history.why_state picks those that decided on one key.';
comment on column history.resolutions.room is 'The room''s number: history.rooms.room.';
comment on column history.resolutions.place is 'Place in the room''s timeline of the event that caused it.';
comment on column history.resolutions.purpose is 'before: for the state before that event; current: for the room''s state after it.';
comment on column history.resolutions.algorithm is 'State resolution algorithm: 1, 2 or 2.1.';
comment on column history.resolutions.resolved_at is 'When.';
comment on column history.resolutions.inputs is 'The branches, and per conflicted key the candidates and the winner.';
comment on column history.resolutions.outcome is 'The order in which events were tried, and why events were refused.';

create view history.state_changes as
select r.room_id,
       s.type,
       s.state_key,
       e.sender,
       history.change_time(r.shard, s.valid_from, s.entry) as began_at,
       case when s.valid_to < 9223372036854775807 then history.change_time(r.shard, s.valid_to, (
           select f.entry
           from roomserver.state f
           where f.room = s.room and f.type = s.type and f.state_key = s.state_key and f.line = 0 and f.valid_to > s.valid_to
           order by f.valid_to
           limit 1)) end as ended_at,
       case when x.target is null then history.json_text(e.json, 'content')::jsonb
           else history.redacted_content(s.type, history.json_text(e.json, 'content')::jsonb, r.room_version) end as content,
       x.target is not null as redacted,
       e.event_id,
       s.valid_from as place,
       s.valid_to as until_place,
       s.room
from roomserver.rooms r
join roomserver.state s on s.room = r.nid and s.line = 0
join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = e.event_id;
comment on view history.state_changes is 'Every piece of every room''s state, from when to when it stood. For one room, history.state_changes_of(room_id).';
comment on column history.state_changes.room_id is 'Matrix room id.';
comment on column history.state_changes.type is 'Event type: m.room.power_levels, m.room.topic and so on.';
comment on column history.state_changes.state_key is 'State key: of a membership, whose; mostly empty otherwise.';
comment on column history.state_changes.sender is 'Who made the change.';
comment on column history.state_changes.began_at is 'From when it stood; null if that was before this server knew the room.';
comment on column history.state_changes.ended_at is 'Until when; null while it stands.';
comment on column history.state_changes.content is 'The content; of a redacted event what redaction leaves.';
comment on column history.state_changes.redacted is 'A redaction took part of the content away.';
comment on column history.state_changes.event_id is 'The state event.';
comment on column history.state_changes.place is 'Place in the room''s timeline from which it stood.';
comment on column history.state_changes.until_place is 'Place from which something else stood; 9223372036854775807 while it stands.';
comment on column history.state_changes.room is 'The room''s number: history.rooms.room.';

create function history.state_changes_of(of_room text) returns setof history.state_changes
language sql stable parallel restricted
begin atomic
    select m.room_id, m.type, m.state_key, m.sender, m.began_at, m.ended_at, m.content, m.redacted, m.event_id, m.place,
           m.until_place, m.room
    from history.state_changes m
    where m.room = history.room_number(of_room);
end;
comment on function history.state_changes_of(text) is 'The state changes of one room: where type = ''m.room.power_levels'' order by place desc limit 50.';
