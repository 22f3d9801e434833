-- room --
-- Whether a room is known.
select exists (select from roomserver.rooms where room_id = %(room_id)s)

-- event --
-- Whether a room that a user is in has an accepted event of that id.
select exists (
    select from eventlog.event_keys i
    join eventlog.outputs o on o.entry = i.id and o.kind in ('s', 'm') and o.verdict = 'a'
    join roomserver.rooms n on n.nid = o.room and n.room_id = %(room_id)s
    join roomserver.memberships m on m.room = n.nid and m.user_id = %(user_id)s and m.membership = 'j'
    where i.key = eventlog.event_key(%(event_id)s))

-- user --
-- Whether a user is known: an account of this server, or somebody who is or was in a room.
select exists (select from writer.accounts where user_id = %(user_id)s)
    or exists (select from roomserver.memberships where user_id = %(user_id)s)
