create table eventlog.tips (
    room_id text collate "C" primary key,
    event_id text collate "C" not null,
    depth bigint not null,
    seq bigint not null,
    state_seq bigint not null,
    generation integer not null
) with (fillfactor = 50);
comment on table eventlog.tips is 'The local end of each room''s chain, judged or not. Owner: append_v1. One row a room.';
comment on column eventlog.tips.room_id is 'Room id.';
comment on column eventlog.tips.event_id is 'Last event appended by this server: the previous event of the next one.';
comment on column eventlog.tips.depth is 'Its depth.';
comment on column eventlog.tips.seq is 'Its place in the chain.';
comment on column eventlog.tips.state_seq is 'Place of the last state event in the chain; while it is unjudged nothing may follow from another group.';
comment on column eventlog.tips.generation is 'roomserver.heads.generation it was built under; a smaller one means the chain broke and restarts at the extremities.';
