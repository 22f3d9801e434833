create table roomserver.erased (
    user_id text collate "C" primary key,
    shard smallint not null,
    position bigint not null
);
comment on table roomserver.erased is 'Users who asked to be forgotten: whoever was not in the room when they spoke gets their events redacted.';
comment on column roomserver.erased.user_id is 'The user.';
comment on column roomserver.erased.shard is 'Shard the position is of.';
comment on column roomserver.erased.position is 'Output position of the request.';
