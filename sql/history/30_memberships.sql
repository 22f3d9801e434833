create view history.memberships as
select r.room_id,
       s.state_key as user_id,
       case s.membership when 'j' then 'join' when 'i' then 'invite' when 'l' then 'leave' when 'b' then 'ban' when 'k' then 'knock'
           end as membership,
       history.change_time(r.shard, s.valid_from, s.entry) as began_at,
       case when s.valid_to < 9223372036854775807
           then history.change_time(r.shard, s.valid_to, following.entry) end as ended_at,
       e.sender as changed_by,
       case when x.target is null then history.json_text(e.json, 'content', 'reason') end as reason,
       case when x.target is null then history.json_text(e.json, 'content', 'displayname') end as display_name,
       s.event_id,
       s.room
from roomserver.rooms r
join roomserver.state s on s.room = r.nid and s.line = 0 and s.type = 'm.room.member'
join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = s.event_id
left join roomserver.state following on following.room = s.room and following.type = 'm.room.member'
    and following.state_key = s.state_key and following.line = 0 and following.valid_from = s.valid_to;
comment on view history.memberships is 'Who was what in which room, from when to when: a row per membership event that was part of the room''s state.';
comment on column history.memberships.room_id is 'Matrix room id.';
comment on column history.memberships.user_id is 'The member.';
comment on column history.memberships.membership is 'join, invite, leave, ban or knock.';
comment on column history.memberships.began_at is 'From when.';
comment on column history.memberships.ended_at is 'Until when; null while it stands.';
comment on column history.memberships.changed_by is 'Who made the change: of another than the member, an invitation, a kick, a ban.';
comment on column history.memberships.reason is 'The reason given; null if none was, or it was redacted.';
comment on column history.memberships.display_name is 'The name shown in the room meanwhile.';
comment on column history.memberships.event_id is 'The membership event.';
comment on column history.memberships.room is 'The room''s number: history.rooms.room.';
