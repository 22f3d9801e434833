-- Every column is looked up by itself: whoever sorts by one and asks for ten rows looks up the others of ten rooms.
create view history.rooms as
select r.room_id,
       r.room_version,
       (select case when x.target is null then history.json_text(e.json, 'content', 'name') end
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = e.event_id
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.name' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as name,
       (select case when x.target is null then history.json_text(e.json, 'content', 'topic') end
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = e.event_id
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.topic' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as topic,
       (select case when x.target is null then history.json_text(e.json, 'content', 'alias') end
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = e.event_id
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.canonical_alias' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as canonical_alias,
       coalesce((
           select history.json_text(e.json, 'content', 'join_rule')
           from roomserver.state s
           join eventlog.events e on e.id = s.entry and e.kind = 's'
           where s.room = r.nid and s.line = 0 and s.type = 'm.room.join_rules' and s.state_key = ''
             and s.valid_to = 9223372036854775807), 'invite') as join_rule,
       coalesce((
           select history.json_text(e.json, 'content', 'history_visibility')
           from roomserver.state s
           join eventlog.events e on e.id = s.entry and e.kind = 's'
           where s.room = r.nid and s.line = 0 and s.type = 'm.room.history_visibility' and s.state_key = ''
             and s.valid_to = 9223372036854775807), 'shared') as history_visibility,
       -- Not exists (…): the planner would rather read all that is encrypted once.
       coalesce((
           select true
           from roomserver.state s
           where s.room = r.nid and s.line = 0 and s.type = 'm.room.encryption' and s.state_key = ''
             and s.valid_to = 9223372036854775807), false) as encrypted,
       (select e.sender
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.create' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as creator,
       (select history.sent_time(e.json)
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.create' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as created_at,
       r.created_at as known_since,
       h.joined as joined_members,
       h.invited as invited_members,
       r.nid as room
from roomserver.rooms r
join roomserver.heads h on h.room = r.nid;
comment on view history.rooms is 'Every room known here as it is now.';
comment on column history.rooms.room_id is 'Matrix room id.';
comment on column history.rooms.room_version is 'Room version.';
comment on column history.rooms.name is 'Name; null if it has none, or the name was redacted.';
comment on column history.rooms.topic is 'Topic; null if it has none, or the topic was redacted.';
comment on column history.rooms.canonical_alias is 'Main alias; null if it has none.';
comment on column history.rooms.join_rule is 'Who may join: public, invite, knock, restricted, knock_restricted, private.';
comment on column history.rooms.history_visibility is 'Who may read what is said now: world_readable, shared, invited, joined.';
comment on column history.rooms.encrypted is 'Whether messages are to be encrypted.';
comment on column history.rooms.creator is 'Who made it.';
comment on column history.rooms.created_at is 'When it was made, as its creator''s server says.';
comment on column history.rooms.known_since is 'When this server first knew it.';
comment on column history.rooms.joined_members is 'Number of members.';
comment on column history.rooms.invited_members is 'Number of people invited.';
comment on column history.rooms.room is 'The number that stands for it in this schema.';
