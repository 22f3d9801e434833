-- notices_room --
-- The room in which a user is told notices: one that the server's own user is in, and that the user is, was, or may come to be in.
select n.room_id, t.membership::text
from roomserver.memberships t
join roomserver.memberships s on s.room = t.room and s.user_id = %(notices_id)s and s.membership = 'j'
join roomserver.rooms n on n.nid = t.room
where t.user_id = %(user_id)s and t.membership <> 'b'
order by t.position desc
limit 1
