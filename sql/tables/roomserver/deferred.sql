create table roomserver.deferred (
    entry bigint primary key,
    room_id text collate "C" not null,
    shard smallint not null,
    reason text not null,
    missing text[] collate "C" not null default '{}',
    deferred_at timestamptz not null default now()
);
create index deferred_room on roomserver.deferred (room_id, entry);
comment on table roomserver.deferred is 'Entries passed over because they must wait; later entries of their room wait behind them. Owner: the room server.';
comment on column roomserver.deferred.entry is 'Entry id.';
comment on column roomserver.deferred.room_id is 'Its room: later entries of the room are deferred behind it.';
comment on column roomserver.deferred.shard is 'Shard it belongs to.';
comment on column roomserver.deferred.reason is 'resolution: a long state resolution; missing: previous or auth events are not known yet; order: behind another entry of the room.';
comment on column roomserver.deferred.missing is 'Event ids it waits for.';
comment on column roomserver.deferred.deferred_at is 'When it was passed over.';
