-- A page of the history starts no workers, and looks at no more events than it shows.

-- What the event says is looked up by itself: whoever sorts all that a user ever was and asks for a hundred looks at a hundred events.
create or replace view history.memberships as
select r.room_id,
       s.state_key as user_id,
       case s.membership when 'j' then 'join' when 'i' then 'invite' when 'l' then 'leave' when 'b' then 'ban' when 'k' then 'knock'
           end as membership,
       history.change_time(r.shard, s.valid_from, s.entry) as began_at,
       case when s.valid_to < 9223372036854775807 then history.change_time(r.shard, s.valid_to, (
           select f.entry
           from roomserver.state f
           where f.room = s.room and f.type = 'm.room.member' and f.state_key = s.state_key and f.line = 0
             and f.valid_to > s.valid_to
           order by f.valid_to
           limit 1)) end as ended_at,
       (select e.sender from eventlog.events e where e.id = s.entry and e.kind = 's') as changed_by,
       (select history.json_text(e.json, 'content', 'reason')
        from eventlog.events e
        where e.id = s.entry and e.kind = 's'
          and not exists (select from roomserver.redactions x where x.target = s.event_id)) as reason,
       (select history.json_text(e.json, 'content', 'displayname')
        from eventlog.events e
        where e.id = s.entry and e.kind = 's'
          and not exists (select from roomserver.redactions x where x.target = s.event_id)) as display_name,
       s.event_id,
       s.room,
       s.valid_from as place,
       s.valid_to as until_place
from roomserver.rooms r
join roomserver.state s on s.room = r.nid and s.line = 0 and s.type = 'm.room.member';

-- Starting workers takes longer than a page does; the planner thinks otherwise, for it counts every partition.
alter function history.room_number(text) parallel restricted;
alter function history.messages_of(text) parallel restricted;
alter function history.edits_of(text) parallel restricted;
alter function history.reactions_of(text) parallel restricted;
alter function history.threads_of(text) parallel restricted;
alter function history.replies_in(text) parallel restricted;
alter function history.state_changes_of(text) parallel restricted;
alter function history.memberships_of(text) parallel restricted;
alter function history.memberships_of_user(text) parallel restricted;
alter function history.state_at(text, timestamptz) parallel restricted;
alter function history.state_between(text, timestamptz, timestamptz) parallel restricted;
alter function history.who_could_see(text) parallel restricted;
alter function history.receipts_of(text) parallel restricted;
