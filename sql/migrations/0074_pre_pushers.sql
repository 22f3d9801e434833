-- Pushers, and what is to be told to them.
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

create table notifications.pushes (
    pusher bigint not null references writer.pushers (id) on delete cascade,
    entry bigint not null,
    room bigint not null,
    actions text not null,
    due_at timestamptz not null default now(),
    attempts integer not null default 0,
    sent_at timestamptz,
    primary key (pusher, entry)
) with (fillfactor = 70);
create index pushes_due on notifications.pushes (due_at) where sent_at is null;
comment on table notifications.pushes is 'What is to be told to push gateways, and what has been within the last hour. Owner: the reader notifications.';
comment on column notifications.pushes.pusher is 'writer.pushers.id.';
comment on column notifications.pushes.entry is 'Entry of the event.';
comment on column notifications.pushes.room is 'roomserver.rooms.nid.';
comment on column notifications.pushes.actions is 'JSON list of the actions of the rule that matched.';
comment on column notifications.pushes.due_at is 'When to try it (again).';
comment on column notifications.pushes.attempts is 'How often it was tried in vain.';
comment on column notifications.pushes.sent_at is 'When the gateway took it; null while it waits.';

-- A gateway does not know push keys any more: "Homeservers must cease sending notification requests for these pushkeys and remove the
-- associated pushers."
create function notifications.reject_v1(of_app text, pushkeys text[]) returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    removed integer;
begin
    delete from writer.pushers p where p.app_id = of_app and p.pushkey = any (pushkeys);
    get diagnostics removed = row_count;
    return removed;
end
$$;
comment on function notifications.reject_v1(text, text[]) is 'Removes the pushers of push keys that their gateway rejected; returns how many.';
