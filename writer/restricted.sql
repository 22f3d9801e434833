-- joined_to_any --
-- Whether a user is joined to one of some rooms.
select exists (
    select from roomserver.rooms n
    join roomserver.memberships m on m.room = n.nid and m.user_id = %(user_id)s and m.membership = 'j'
    where n.room_id = any (%(room_ids)s::text[]))
