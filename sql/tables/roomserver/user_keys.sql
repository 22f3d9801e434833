create table roomserver.user_keys (
    user_id text collate "C" not null,
    usage text collate "C" not null check (usage in ('device', 'master', 'self_signing', 'user_signing', 'signed')),
    key_id text collate "C" not null,
    key text not null,
    shard smallint not null,
    position bigint not null,
    primary key (user_id, usage, key_id)
);
comment on table roomserver.user_keys is 'Public keys of users'' devices, cross-signing keys, and what a user signed of others: the table of record.';
comment on column roomserver.user_keys.user_id is 'Whose.';
comment on column roomserver.user_keys.usage is 'device: identity keys of a device; master, self_signing, user_signing: cross-signing keys; signed: signatures that this user made on the master key of another.';
comment on column roomserver.user_keys.key_id is 'device: the device id, NUL-safe; signed: the other user; otherwise empty.';
comment on column roomserver.user_keys.key is 'The key as its client uploaded it, with the user''s own signatures, JSON object as text; for signed: {"key", "signatures"}.';
comment on column roomserver.user_keys.shard is 'Shard the position is of.';
comment on column roomserver.user_keys.position is 'Output position of the change.';

create table roomserver.device_lists (
    user_id text collate "C" primary key,
    shard smallint not null,
    position bigint not null
) with (fillfactor = 70);
create index device_lists_changed on roomserver.device_lists (shard, position);
comment on table roomserver.device_lists is 'When what others have to know of a user''s devices last changed.';
comment on column roomserver.device_lists.user_id is 'Whose.';
comment on column roomserver.device_lists.shard is 'Shard the position is of.';
comment on column roomserver.device_lists.position is 'Output position of the last change.';
