create table roomserver.relations (
    target text collate "C" not null,
    rel_type text collate "C" not null,
    timeline bigint not null,
    entry bigint not null,
    room bigint not null,
    event_id text collate "C" not null,
    sender text collate "C" not null,
    primary key (target, rel_type, timeline, event_id)
);
create index relations_room on roomserver.relations (room, rel_type, timeline);
comment on table roomserver.relations is 'Accepted events that relate to another one: edits, reactions, threads, references.';
comment on column roomserver.relations.target is 'Event id related to.';
comment on column roomserver.relations.rel_type is 'm.replace, m.annotation, m.thread, m.reference or another.';
comment on column roomserver.relations.timeline is 'Timeline order of the relating event.';
comment on column roomserver.relations.entry is 'Entry of the relating event.';
comment on column roomserver.relations.room is 'roomserver.rooms.nid.';
comment on column roomserver.relations.event_id is 'Event id of the relating event.';
comment on column roomserver.relations.sender is 'Sender of the relating event.';
