-- rooms_of_user --
-- The rooms in which a user has one of some memberships.
select n.room_id, m.membership::text
from roomserver.memberships m
join roomserver.rooms n on n.nid = m.room
where m.user_id = %(user_id)s and m.membership::text = any (%(memberships)s::text[])
order by m.position desc

-- membership --
-- A user's membership in a room, and whether the room is known: one letter, or none.
select m.membership::text
from roomserver.rooms n
left join roomserver.memberships m on m.room = n.nid and m.user_id = %(user_id)s
where n.room_id = %(room_id)s

-- local_members --
-- Joined members of a room whose ids end as given, those asked for first.
select m.user_id
from roomserver.memberships m
join roomserver.rooms n on n.nid = m.room
where n.room_id = %(room_id)s and m.membership = 'j' and right(m.user_id, length(%(ending)s)) = %(ending)s
order by m.user_id = any (%(first)s::text[]) desc
limit %(most)s
