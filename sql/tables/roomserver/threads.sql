create table roomserver.threads (
    room bigint not null,
    root text collate "C" not null,
    begun bigint not null,
    entry bigint not null,
    event_id text collate "C" not null,
    primary key (room, root)
);
create unique index threads_begun on roomserver.threads (room, begun);
comment on table roomserver.threads is 'A row per thread, written with the first reply: so that the threads of a room are a list, however long they are.';
comment on column roomserver.threads.room is 'roomserver.rooms.nid.';
comment on column roomserver.threads.root is 'Event id of the message that began it.';
comment on column roomserver.threads.begun is 'Timeline order of the first reply that is known here.';
comment on column roomserver.threads.entry is 'Entry of that reply.';
comment on column roomserver.threads.event_id is 'Event id of that reply.';
