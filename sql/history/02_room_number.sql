-- Room ids as people know them, made into the numbers that the tables join by.
create function history.room_number(of_room text) returns bigint
language sql stable strict parallel safe security definer
set search_path = ''
return (select r.nid from roomserver.rooms r where r.room_id = of_room);
comment on function history.room_number(text) is 'The number that stands for a room inside the database; null for a room that is not known here.';
