create table roomserver.profiles (
    user_id text collate "C" not null,
    field text collate "C" not null,
    value text not null,
    shard smallint not null,
    position bigint not null,
    primary key (user_id, field)
);
comment on table roomserver.profiles is 'Profile fields of local users: the table of record.';
comment on column roomserver.profiles.user_id is 'Whose.';
comment on column roomserver.profiles.field is 'displayname, avatar_url or another key name, NUL-safe.';
comment on column roomserver.profiles.value is 'JSON value as text.';
comment on column roomserver.profiles.shard is 'Shard the position is of.';
comment on column roomserver.profiles.position is 'Output position of the change.';
