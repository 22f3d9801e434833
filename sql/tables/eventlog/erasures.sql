create table eventlog.erasures (
    id bigint generated always as identity primary key,
    action text collate "C" not null check (action in ('partition', 'policy', 'history', 'room', 'redactions', 'user')),
    subject text collate "C" not null,
    requested_by text collate "C" not null,
    detail text not null default '{}',
    events bigint not null default 0,
    kept bigint not null default 0,
    bytes bigint not null default 0,
    began_at timestamptz not null default now(),
    ended_at timestamptz
);
create index erasures_unfinished on eventlog.erasures (action, subject) where ended_at is null;
create index erasures_began on eventlog.erasures (began_at);
comment on table eventlog.erasures is 'What was taken out of the log, by whom and when. Automatic scrubbing has a row a day.';
comment on column eventlog.erasures.id is 'Number of the record.';
comment on column eventlog.erasures.action is 'partition: dropped by age; policy: older than a room''s m.room.retention allows; history, room: purged on request; redactions: content scrubbed after its delay; user: erased on request.';
comment on column eventlog.erasures.subject is 'What it was done to: a partition, a room id, a user id; empty for redactions of all rooms.';
comment on column eventlog.erasures.requested_by is 'Login name of the person who asked for it, or maintenance.';
comment on column eventlog.erasures.detail is 'JSON object: what was asked for.';
comment on column eventlog.erasures.events is 'Entries removed or scrubbed.';
comment on column eventlog.erasures.kept is 'Entries of them that stayed, for something else needs them.';
comment on column eventlog.erasures.bytes is 'Bytes of disk that were freed at once; 0 where rows were removed, whose space is used again.';
comment on column eventlog.erasures.began_at is 'When it began.';
comment on column eventlog.erasures.ended_at is 'When it was done; null while it runs, or was broken off and will be taken up again.';
