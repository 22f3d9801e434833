-- messages --
-- What a person who may read the history sees of one room.
select * from history.messages where room_id = %(room_id)s limit 20
