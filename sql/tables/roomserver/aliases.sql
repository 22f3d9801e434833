create table roomserver.aliases (
    alias text collate "C" primary key,
    room_id text collate "C" not null,
    creator text collate "C" not null,
    position bigint not null
);
create index aliases_room on roomserver.aliases (room_id);
comment on table roomserver.aliases is 'Room aliases of this server: the table of record.';
comment on column roomserver.aliases.alias is 'Full alias (#name:server).';
comment on column roomserver.aliases.room_id is 'Room it points to.';
comment on column roomserver.aliases.creator is 'User who made it and may remove it.';
comment on column roomserver.aliases.position is 'Output position of the change.';
