-- settings --
-- What a user's account data says of a room: tags, push rules and direct chats.
select room_id, type, content
from roomserver.account_data
where user_id = %(user_id)s
  and ((room_id = '' and type in ('m.push_rules', 'm.direct')) or (room_id in (%(old_room)s, %(new_room)s) and type = 'm.tag'))
