create table roomserver.account_data (
    user_id text collate "C" not null,
    room_id text collate "C" not null,
    type text collate "C" not null,
    content text not null,
    shard smallint not null,
    position bigint not null,
    primary key (user_id, room_id, type)
) with (fillfactor = 70);
comment on table roomserver.account_data is 'Account data, tags (m.tag), read markers (m.fully_read) and push rules (m.push_rules): the table of record.';
comment on column roomserver.account_data.user_id is 'Whose.';
comment on column roomserver.account_data.room_id is 'Room id; empty for global.';
comment on column roomserver.account_data.type is 'Type, NUL-safe.';
comment on column roomserver.account_data.content is 'JSON object as text.';
comment on column roomserver.account_data.shard is 'Shard the position is of.';
comment on column roomserver.account_data.position is 'Output position of the change.';
