create table roomserver.presence (
    user_id text collate "C" primary key,
    presence text collate "C" not null check (presence in ('online', 'unavailable', 'offline')),
    status_msg text,
    active_at bigint not null,
    until bigint not null,
    by text collate "C" not null,
    changed bigint not null,
    shard smallint not null,
    position bigint not null
) with (fillfactor = 50);
create index presence_changed on roomserver.presence (shard, changed);
create index presence_up on roomserver.presence (until) where presence <> 'offline';
comment on table roomserver.presence is 'Presence of local users: the table of record.';
comment on column roomserver.presence.user_id is 'Whose.';
comment on column roomserver.presence.presence is 'online, unavailable or offline.';
comment on column roomserver.presence.status_msg is 'What the user said of it, NUL-safe; null for nothing.';
comment on column roomserver.presence.active_at is 'Milliseconds since 1970 the user last did something, as of this change.';
comment on column roomserver.presence.until is 'Milliseconds since 1970 until which it holds unless it is renewed: then the user counts as offline.';
comment on column roomserver.presence.by is 'Process that answers for it.';
comment on column roomserver.presence.changed is 'Output position at which presence or status last changed.';
comment on column roomserver.presence.shard is 'Shard the positions are of.';
comment on column roomserver.presence.position is 'Output position of the last entry, a renewal too.';
