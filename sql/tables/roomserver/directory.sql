create table roomserver.directory (
    room_id text collate "C" primary key,
    position bigint not null
);
comment on table roomserver.directory is 'Rooms published in the room directory.';
comment on column roomserver.directory.room_id is 'Room id.';
comment on column roomserver.directory.position is 'Output position of the publication.';
