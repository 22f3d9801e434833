create table roomserver.resolutions (
    room bigint not null references roomserver.rooms (nid),
    position bigint not null,
    purpose text collate "C" not null,
    algorithm text collate "C" not null,
    inputs text not null,
    outcome text not null,
    resolved_at timestamptz not null default now(),
    primary key (room, position, purpose)
);
comment on table roomserver.resolutions is 'Every state resolution that was not trivial: what went in, what came out, why.';
comment on column roomserver.resolutions.room is 'roomserver.rooms.nid.';
comment on column roomserver.resolutions.position is 'Output position of the event that caused it.';
comment on column roomserver.resolutions.purpose is 'before: the state before that event; current: the room''s current state after it.';
comment on column roomserver.resolutions.algorithm is 'State resolution algorithm: v1, v2, v2.1.';
comment on column roomserver.resolutions.inputs is 'JSON: per branch the event it ends in and its value of each conflicted key.';
comment on column roomserver.resolutions.outcome is 'JSON: the resolved value of each conflicted key, and the reason each refused event was refused.';
comment on column roomserver.resolutions.resolved_at is 'When.';
