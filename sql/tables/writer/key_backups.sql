create table writer.key_backups (
    id bigint generated always as identity primary key,
    user_id text collate "C" not null references writer.accounts (user_id) on delete cascade,
    nonce text collate "C" not null default left(gen_random_uuid()::text, 8),
    algorithm text not null,
    auth_data text not null,
    keys bigint not null default 0,
    etag uuid not null default gen_random_uuid(),
    made_at timestamptz not null default now(),
    deleted_at timestamptz
);
create index key_backups_user on writer.key_backups (user_id, id);
comment on table writer.key_backups is 'Backups of encryption keys: secrets, which only their users can read. Keys are added to a user''s newest one.';
comment on column writer.key_backups.id is 'Number of the backup, higher for later ones.';
comment on column writer.key_backups.user_id is 'Whose.';
comment on column writer.key_backups.nonce is 'With the number the version: after a restore a number comes again, and a client must not take another backup for its own.';
comment on column writer.key_backups.algorithm is 'How keys are encrypted, NUL-safe.';
comment on column writer.key_backups.auth_data is 'JSON object as text, NUL-safe: the public key and signatures; {} once it is deleted.';
comment on column writer.key_backups.keys is 'Keys in it.';
comment on column writer.key_backups.etag is 'Another one after each change of its keys.';
comment on column writer.key_backups.made_at is 'When it was made.';
comment on column writer.key_backups.deleted_at is 'When its user deleted it, and with it its keys; null: not yet.';

create table writer.backed_up_keys (
    backup bigint not null references writer.key_backups (id) on delete cascade,
    room_id text collate "C" not null,
    session_id text collate "C" not null,
    is_verified boolean not null,
    first_message_index bigint not null,
    forwarded_count bigint not null,
    session_data text not null,
    primary key (backup, room_id, session_id)
);
comment on table writer.backed_up_keys is 'Keys of encrypted rooms'' sessions, encrypted by their users. At most 200,000 a backup.';
comment on column writer.backed_up_keys.backup is 'writer.key_backups.id.';
comment on column writer.backed_up_keys.room_id is 'Room of the session, NUL-safe.';
comment on column writer.backed_up_keys.session_id is 'The session, NUL-safe.';
comment on column writer.backed_up_keys.is_verified is 'Whether the device that backed it up had verified where it came from.';
comment on column writer.backed_up_keys.first_message_index is 'First message that it decrypts.';
comment on column writer.backed_up_keys.forwarded_count is 'How often it was forwarded.';
comment on column writer.backed_up_keys.session_data is 'JSON object as text, NUL-safe: the encrypted key.';
