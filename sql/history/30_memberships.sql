-- What the event says is looked up by itself: whoever sorts all that a user ever was and asks for a hundred looks at a hundred events.
create view history.memberships as
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
          and not exists (select from roomserver.redactions x where x.target = e.event_id)) as reason,
       (select history.json_text(e.json, 'content', 'displayname')
        from eventlog.events e
        where e.id = s.entry and e.kind = 's'
          and not exists (select from roomserver.redactions x where x.target = e.event_id)) as display_name,
       (select e.event_id from eventlog.events e where e.id = s.entry and e.kind = 's') as event_id,
       s.room,
       s.valid_from as place,
       s.valid_to as until_place
from roomserver.rooms r
join roomserver.state s on s.room = r.nid and s.line = 0 and s.type = 'm.room.member';
comment on view history.memberships is 'Who was what in which room, from when to when: a row per membership event that was part of the room''s state. For one room, history.memberships_of(room_id); for one user, history.memberships_of_user(user_id).';
comment on column history.memberships.room_id is 'Matrix room id.';
comment on column history.memberships.user_id is 'The member.';
comment on column history.memberships.membership is 'join, invite, leave, ban or knock.';
comment on column history.memberships.began_at is 'From when; null if that was before this server knew the room.';
comment on column history.memberships.ended_at is 'Until when; null while it stands.';
comment on column history.memberships.changed_by is 'Who made the change: of another than the member, an invitation, a kick, a ban.';
comment on column history.memberships.reason is 'The reason given; null if none was, or it was redacted.';
comment on column history.memberships.display_name is 'The name shown in the room meanwhile.';
comment on column history.memberships.event_id is 'The membership event.';
comment on column history.memberships.room is 'The room''s number: history.rooms.room.';
comment on column history.memberships.place is 'Place in the room''s timeline from which it stood.';
comment on column history.memberships.until_place is 'Place from which another stood; 9223372036854775807 while it stands.';

create function history.memberships_of(of_room text) returns setof history.memberships
language sql stable parallel restricted
begin atomic
    select m.room_id, m.user_id, m.membership, m.began_at, m.ended_at, m.changed_by, m.reason, m.display_name, m.event_id, m.room,
           m.place, m.until_place
    from history.memberships m
    where m.room = history.room_number(of_room);
end;
comment on function history.memberships_of(text) is 'The memberships of one room over time: order by place desc limit 50 reads the last fifty changes.';

-- Members as they are now: what tells which rooms a user's memberships are in.
create view history.members as
select m.user_id,
       r.room_id,
       case m.membership when 'j' then 'join' when 'i' then 'invite' when 'l' then 'leave' when 'b' then 'ban' when 'k' then 'knock'
           end as membership,
       eventlog.entry_time(m.entry) as changed_at,
       m.sender as changed_by,
       m.position as place,
       m.room
from roomserver.memberships m
join roomserver.rooms r on r.nid = m.room;
comment on view history.members is 'Everyone who has or had to do with a room, with what they are there now.';
comment on column history.members.user_id is 'The member.';
comment on column history.members.room_id is 'Matrix room id.';
comment on column history.members.membership is 'join, invite, leave, ban or knock.';
comment on column history.members.changed_at is 'When the membership event was appended to the log here.';
comment on column history.members.changed_by is 'Who made the change: a leave of another than the member is a kick.';
comment on column history.members.place is 'Place in the room''s timeline from which it stands.';
comment on column history.members.room is 'The room''s number: history.rooms.room.';

create function history.memberships_of_user(of_user text) returns setof history.memberships
language sql stable parallel restricted
begin atomic
    select m.room_id, m.user_id, m.membership, m.began_at, m.ended_at, m.changed_by, m.reason, m.display_name, m.event_id, m.room,
           m.place, m.until_place
    from history.members n
    join history.memberships m on m.room = n.room and m.user_id = n.user_id
    where n.user_id = of_user;
end;
comment on function history.memberships_of_user(text) is 'Which rooms a user was in, invited to or thrown out of, over time.';
