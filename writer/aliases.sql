-- room_of_alias --
-- The room an alias points to, and who made the alias.
select room_id, creator from roomserver.aliases where alias = %(alias)s

-- aliases_of_room --
-- All aliases that point to a room.
select alias from roomserver.aliases where room_id = %(room_id)s order by alias limit 10000

-- number_of_aliases --
-- How many aliases point to a room, as far as it matters.
select count(*) from (select from roomserver.aliases where room_id = %(room_id)s limit %(most)s) as a
