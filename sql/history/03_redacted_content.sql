-- What a redaction leaves of a content, in the room version of the event: the same rule as matrix/redaction.py, for people who read
-- state. A test compares the two over all versions.
create function history.redacted_content(event_type text, content jsonb, room_version text) returns jsonb
language sql immutable strict parallel safe
return case
    when event_type = 'm.room.create' and room_version in ('11', '12') then content
    else (
        select coalesce(jsonb_object_agg(k.key, case
                   when k.key = 'third_party_invite' then jsonb_build_object('signed', k.value -> 'signed')
                   else k.value end), '{}')
        from jsonb_each(content) as k
        where case event_type
            when 'm.room.member' then
                k.key = 'membership'
                or (k.key = 'join_authorised_via_users_server' and room_version in ('9', '10', '11', '12'))
                or (k.key = 'third_party_invite' and room_version in ('11', '12')
                    and jsonb_typeof(k.value) = 'object' and k.value ? 'signed')
            when 'm.room.create' then k.key = 'creator'
            when 'm.room.join_rules' then
                k.key = 'join_rule' or (k.key = 'allow' and room_version in ('8', '9', '10', '11', '12'))
            when 'm.room.power_levels' then
                k.key in ('ban', 'events', 'events_default', 'kick', 'redact', 'state_default', 'users', 'users_default')
                or (k.key = 'invite' and room_version in ('11', '12'))
            when 'm.room.history_visibility' then k.key = 'history_visibility'
            when 'm.room.aliases' then k.key = 'aliases' and room_version in ('1', '2', '3', '4', '5')
            when 'm.room.redaction' then k.key = 'redacts' and room_version in ('11', '12')
            else false end)
    end;
comment on function history.redacted_content(text, jsonb, text) is 'What a redaction leaves of the content of an event of a type, by the rules of a room version.';
