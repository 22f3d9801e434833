create table writer.accounts (
    user_id text collate "C" primary key,
    password_hash text,
    admin boolean not null default false,
    guest boolean not null default false,
    deactivated_at timestamptz,
    created_at timestamptz not null default now(),
    locked_at timestamptz,
    suspended_at timestamptz
);
comment on table writer.accounts is 'Local accounts.';
comment on column writer.accounts.user_id is 'Matrix user id.';
comment on column writer.accounts.password_hash is 'argon2id hash; null when password login is impossible.';
comment on column writer.accounts.admin is 'Server administrator.';
comment on column writer.accounts.guest is 'Guest account.';
comment on column writer.accounts.deactivated_at is 'When it was deactivated; null while active.';
comment on column writer.accounts.created_at is 'When it was registered.';
comment on column writer.accounts.locked_at is 'Since when it can do nothing but log out; null: it is not locked.';
comment on column writer.accounts.suspended_at is 'Since when it can read but not speak; null: it is not suspended.';
create index accounts_guests on writer.accounts (user_id) where guest;

create table writer.devices (
    user_id text collate "C" not null references writer.accounts (user_id),
    device_id text collate "C" not null,
    display_name text,
    created_at timestamptz not null default now(),
    last_seen_at timestamptz,
    last_seen_ip text,
    last_seen_user_agent text,
    primary key (user_id, device_id)
) with (fillfactor = 80);
comment on table writer.devices is 'Devices of local accounts.';
comment on column writer.devices.user_id is 'Owner.';
comment on column writer.devices.device_id is 'Device id.';
comment on column writer.devices.display_name is 'Name the user gave it, NUL-safe.';
comment on column writer.devices.created_at is 'When it first logged in.';
comment on column writer.devices.last_seen_at is 'Last use, to the minute.';
comment on column writer.devices.last_seen_ip is 'Address of the last use.';
comment on column writer.devices.last_seen_user_agent is 'User-Agent header of the last use, NUL-safe, at most 255 bytes.';

create table writer.sessions (
    token_hash bytea primary key,
    user_id text collate "C" not null,
    device_id text collate "C" not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    refresh_hash bytea unique,
    foreign key (user_id, device_id) references writer.devices (user_id, device_id) on delete cascade
);
create index sessions_device on writer.sessions (user_id, device_id);
comment on table writer.sessions is 'Access tokens, only ever as hashes.';
comment on column writer.sessions.token_hash is 'sha256 of the access token.';
comment on column writer.sessions.user_id is 'Whose.';
comment on column writer.sessions.device_id is 'Of which device.';
comment on column writer.sessions.created_at is 'When it was given out.';
comment on column writer.sessions.expires_at is 'When it ends; null: never.';
comment on column writer.sessions.refresh_hash is 'sha256 of the refresh token that replaces it, if any.';

create table writer.filters (
    user_id text collate "C" not null references writer.accounts (user_id),
    filter_id text collate "C" not null,
    definition text not null,
    primary key (user_id, filter_id)
);
comment on table writer.filters is 'Client filters, immutable, one row for equal definitions of a user. At most 1,000 a user.';
comment on column writer.filters.user_id is 'Whose.';
comment on column writer.filters.filter_id is 'Derived from the hash of the definition.';
comment on column writer.filters.definition is 'Filter as canonical JSON text.';

create table writer.uia_sessions (
    session_id text collate "C" primary key,
    request_hash bytea not null,
    completed text[] collate "C" not null default '{}',
    data text not null default '{}',
    created_at timestamptz not null default now()
);
comment on table writer.uia_sessions is 'User-interactive authentication under way; maintenance removes sessions older than a day.';
comment on column writer.uia_sessions.session_id is 'Random id the client names.';
comment on column writer.uia_sessions.request_hash is 'sha256 of method and path: a session serves one kind of request.';
comment on column writer.uia_sessions.completed is 'Stages completed.';
comment on column writer.uia_sessions.data is 'JSON: what a completed stage left (the registration token, the new user id).';
comment on column writer.uia_sessions.created_at is 'When it began.';

create table writer.registration_tokens (
    token text collate "C" primary key,
    uses_allowed integer,
    pending integer not null default 0,
    completed integer not null default 0,
    expires_at timestamptz
);
comment on table writer.registration_tokens is 'Tokens that allow a registration.';
comment on column writer.registration_tokens.token is 'The token itself: it is shared with people by design.';
comment on column writer.registration_tokens.uses_allowed is 'How often it may be used; null: any number.';
comment on column writer.registration_tokens.pending is 'Registrations under way with it.';
comment on column writer.registration_tokens.completed is 'Registrations completed with it.';
comment on column writer.registration_tokens.expires_at is 'When it ends; null: never.';
