create table roomserver.to_device (
    user_id text collate "C" not null,
    device_id text collate "C" not null,
    shard smallint not null,
    position bigint not null,
    sender text collate "C" not null,
    type text collate "C" not null,
    content text not null,
    primary key (user_id, device_id, shard, position)
);
comment on table roomserver.to_device is 'Messages to devices that have not said yet that they got them.';
comment on column roomserver.to_device.user_id is 'To whom.';
comment on column roomserver.to_device.device_id is 'To which device, NUL-safe.';
comment on column roomserver.to_device.shard is 'Shard the position is of.';
comment on column roomserver.to_device.position is 'Output position of the message.';
comment on column roomserver.to_device.sender is 'Who sent it.';
comment on column roomserver.to_device.type is 'Event type, NUL-safe.';
comment on column roomserver.to_device.content is 'JSON object as text.';
