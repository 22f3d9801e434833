create table writer.pushers (
    id bigint generated always as identity primary key,
    user_id text collate "C" not null references writer.accounts (user_id) on delete cascade,
    device_id text collate "C" not null,
    app_id text collate "C" not null,
    pushkey text collate "C" not null,
    app_display_name text not null,
    device_display_name text not null,
    profile_tag text not null,
    lang text not null,
    data text not null,
    set_at timestamptz not null default now(),
    unique (user_id, app_id, pushkey),
    foreign key (user_id, device_id) references writer.devices (user_id, device_id) on delete cascade
);
create index pushers_key on writer.pushers (app_id, pushkey);
comment on table writer.pushers is 'Where users want to be told of notifications: push gateways. A pusher goes with the device that set it.';
comment on column writer.pushers.id is 'Number of the pusher.';
comment on column writer.pushers.user_id is 'Whose.';
comment on column writer.pushers.device_id is 'Device that set it.';
comment on column writer.pushers.app_id is 'Application, NUL-safe.';
comment on column writer.pushers.pushkey is 'Address within the application''s push service, NUL-safe.';
comment on column writer.pushers.app_display_name is 'Name of the application, NUL-safe.';
comment on column writer.pushers.device_display_name is 'Name of the device, NUL-safe.';
comment on column writer.pushers.profile_tag is 'Profile tag, NUL-safe; empty for none.';
comment on column writer.pushers.lang is 'Preferred language, NUL-safe.';
comment on column writer.pushers.data is 'JSON object as text: url of the gateway, format, and what the application adds.';
comment on column writer.pushers.set_at is 'When it was set last.';
