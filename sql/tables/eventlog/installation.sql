create table eventlog.installation (
    only_row boolean primary key default true check (only_row),
    server_name text collate "C" not null,
    signing_key_id text collate "C" not null,
    signing_key text collate "C" not null,
    shards smallint not null check (shards between 1 and 256),
    created_at timestamptz not null default now()
);
comment on table eventlog.installation is 'One row: what may never differ between a database and the server started on it.';
comment on column eventlog.installation.only_row is 'Always true; the primary key on it keeps this a single row.';
comment on column eventlog.installation.server_name is 'The Matrix server name, part of every user id.';
comment on column eventlog.installation.signing_key_id is 'Id of the signing key (ed25519:a_abcd) events are signed with.';
comment on column eventlog.installation.signing_key is 'Its public half, unpadded base64: a server started with another key refuses.';
comment on column eventlog.installation.shards is 'Number of room server shards, fixed at init; raising it is a drained step.';
comment on column eventlog.installation.created_at is 'When init ran.';
