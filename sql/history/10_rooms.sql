create view history.rooms as
select r.room_id,
       r.room_version,
       case when name_redacted.target is null then history.json_text(name.json, 'content', 'name') end as name,
       case when topic_redacted.target is null then history.json_text(topic.json, 'content', 'topic') end as topic,
       case when alias_redacted.target is null then history.json_text(alias.json, 'content', 'alias') end as canonical_alias,
       coalesce(history.json_text(join_rules.json, 'content', 'join_rule'), 'invite') as join_rule,
       coalesce(history.json_text(visibility.json, 'content', 'history_visibility'), 'shared') as history_visibility,
       encryption.entry is not null as encrypted,
       creation.sender as creator,
       history.sent_time(creation.json) as created_at,
       r.created_at as known_since,
       h.joined as joined_members,
       h.invited as invited_members,
       r.nid as room
from roomserver.rooms r
join roomserver.heads h on h.room = r.nid
left join roomserver.state create_state on create_state.room = r.nid and create_state.line = 0
    and create_state.type = 'm.room.create' and create_state.state_key = '' and create_state.valid_to = 9223372036854775807
left join eventlog.events creation on creation.id = create_state.entry and creation.kind = 's'
left join roomserver.state name_state on name_state.room = r.nid and name_state.line = 0
    and name_state.type = 'm.room.name' and name_state.state_key = '' and name_state.valid_to = 9223372036854775807
left join eventlog.events name on name.id = name_state.entry and name.kind = 's'
left join roomserver.redactions name_redacted on name_redacted.target = name_state.event_id
left join roomserver.state topic_state on topic_state.room = r.nid and topic_state.line = 0
    and topic_state.type = 'm.room.topic' and topic_state.state_key = '' and topic_state.valid_to = 9223372036854775807
left join eventlog.events topic on topic.id = topic_state.entry and topic.kind = 's'
left join roomserver.redactions topic_redacted on topic_redacted.target = topic_state.event_id
left join roomserver.state alias_state on alias_state.room = r.nid and alias_state.line = 0
    and alias_state.type = 'm.room.canonical_alias' and alias_state.state_key = '' and alias_state.valid_to = 9223372036854775807
left join eventlog.events alias on alias.id = alias_state.entry and alias.kind = 's'
left join roomserver.redactions alias_redacted on alias_redacted.target = alias_state.event_id
left join roomserver.state rules_state on rules_state.room = r.nid and rules_state.line = 0
    and rules_state.type = 'm.room.join_rules' and rules_state.state_key = '' and rules_state.valid_to = 9223372036854775807
left join eventlog.events join_rules on join_rules.id = rules_state.entry and join_rules.kind = 's'
left join roomserver.state visibility_state on visibility_state.room = r.nid and visibility_state.line = 0
    and visibility_state.type = 'm.room.history_visibility' and visibility_state.state_key = ''
    and visibility_state.valid_to = 9223372036854775807
left join eventlog.events visibility on visibility.id = visibility_state.entry and visibility.kind = 's'
left join roomserver.state encryption on encryption.room = r.nid and encryption.line = 0
    and encryption.type = 'm.room.encryption' and encryption.state_key = '' and encryption.valid_to = 9223372036854775807;
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
