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
