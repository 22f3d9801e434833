create table roomserver.heads (
    room bigint primary key references roomserver.rooms (nid),
    extremities text[] collate "C" not null,
    depth bigint not null,
    position bigint not null,
    state_position bigint not null,
    judged_seq bigint not null,
    generation integer not null default 0,
    joined integer not null default 0,
    invited integer not null default 0
) with (fillfactor = 40);
comment on table roomserver.heads is 'Where each room stands. One row a room, updated in place.';
comment on column roomserver.heads.room is 'roomserver.rooms.nid.';
comment on column roomserver.heads.extremities is 'Forward extremities: accepted events that no accepted event names as previous.';
comment on column roomserver.heads.depth is 'Greatest depth among accepted events.';
comment on column roomserver.heads.position is 'Position of the last output of the room.';
comment on column roomserver.heads.state_position is 'Position at which the current state last changed.';
comment on column roomserver.heads.judged_seq is 'Place in the local chain up to which events are judged.';
comment on column roomserver.heads.generation is 'Counts broken chains: raised when a local event is not accepted.';
comment on column roomserver.heads.joined is 'Number of joined members.';
comment on column roomserver.heads.invited is 'Number of invited members.';
