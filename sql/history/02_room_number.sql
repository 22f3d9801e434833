-- Room ids as people know them, made into the numbers that the tables join by. A room that is not known here is not an empty one.
create view history.room_numbers as
select r.room_id, r.nid as room
from roomserver.rooms r;
comment on view history.room_numbers is 'Which number stands for which room in this schema.';
comment on column history.room_numbers.room_id is 'Matrix room id.';
comment on column history.room_numbers.room is 'The room''s number: history.rooms.room.';

-- Restricted, as all functions are that give a room's rows: starting workers takes longer than a page does, and the planner, which counts
-- every partition, thinks otherwise.
-- With the rights of whoever asks, for the view has its owner's: a page asks this once per look-up, and changing rights costs more.
create function history.room_number(of_room text) returns bigint
language plpgsql stable parallel restricted
as $$
declare
    found bigint := (select r.room from history.room_numbers r where r.room_id = of_room);
begin
    if found is null then
        raise exception 'the room % is not known here', coalesce(of_room, '(null)') using errcode = 'P0002';
    end if;
    return found;
end
$$;
comment on function history.room_number(text) is 'The number that stands for a room inside the database. Fails with P0002 for a room that is not known here.';
