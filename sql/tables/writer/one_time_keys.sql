create table writer.one_time_keys (
    user_id text collate "C" not null,
    device_id text collate "C" not null,
    algorithm text collate "C" not null,
    key_id text collate "C" not null,
    ordinal bigint generated always as identity,
    key text not null,
    epoch text collate "C" not null,
    uploaded_at timestamptz not null default now(),
    claimed_at timestamptz,
    primary key (user_id, device_id, algorithm, key_id),
    foreign key (user_id, device_id) references writer.devices (user_id, device_id) on delete cascade
) with (fillfactor = 85);
create index one_time_keys_next on writer.one_time_keys (user_id, device_id, algorithm, ordinal) where claimed_at is null;
comment on table writer.one_time_keys is 'One-time keys: each is handed out at most once, and stays for a week afterwards, so that it is known when it is uploaded again.';
comment on column writer.one_time_keys.user_id is 'Whose.';
comment on column writer.one_time_keys.device_id is 'Of which device.';
comment on column writer.one_time_keys.algorithm is 'Algorithm, the first part of the client''s key id; NUL-safe.';
comment on column writer.one_time_keys.key_id is 'The second part; NUL-safe.';
comment on column writer.one_time_keys.ordinal is 'Order of uploading, in which they are handed out.';
comment on column writer.one_time_keys.key is 'The key, a JSON string or object as text.';
comment on column writer.one_time_keys.epoch is 'Epoch in which it was uploaded: in a later one nobody knows whether it was handed out, so it never is.';
comment on column writer.one_time_keys.uploaded_at is 'When it was uploaded.';
comment on column writer.one_time_keys.claimed_at is 'When it was handed out; null: not yet.';

create table writer.fallback_keys (
    user_id text collate "C" not null,
    device_id text collate "C" not null,
    algorithm text collate "C" not null,
    key_id text collate "C" not null,
    key text not null,
    epoch text collate "C" not null,
    used boolean not null default false,
    primary key (user_id, device_id, algorithm),
    foreign key (user_id, device_id) references writer.devices (user_id, device_id) on delete cascade
) with (fillfactor = 85);
comment on table writer.fallback_keys is 'What is handed out when a device has no one-time key left.';
comment on column writer.fallback_keys.user_id is 'Whose.';
comment on column writer.fallback_keys.device_id is 'Of which device.';
comment on column writer.fallback_keys.algorithm is 'Algorithm, the first part of the client''s key id; NUL-safe.';
comment on column writer.fallback_keys.key_id is 'The second part; NUL-safe.';
comment on column writer.fallback_keys.key is 'The key, a JSON string or object as text.';
comment on column writer.fallback_keys.epoch is 'Epoch in which it was uploaded: in a later one it counts as used.';
comment on column writer.fallback_keys.used is 'Whether it has been handed out.';
