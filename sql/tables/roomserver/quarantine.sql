create table roomserver.attempts (
    entry bigint primary key,
    attempts integer not null,
    last_error text not null,
    tried_at timestamptz not null default now()
);
comment on table roomserver.attempts is 'Durable attempt counts of entries tried singly after a failure. Owner: the room server, which deletes a row when its entry is judged.';
comment on column roomserver.attempts.entry is 'Entry id.';
comment on column roomserver.attempts.attempts is 'How often it was begun without being finished.';
comment on column roomserver.attempts.last_error is 'What the last failure said; empty when the process died.';
comment on column roomserver.attempts.tried_at is 'When it was last begun.';

create table roomserver.quarantine (
    entry bigint primary key,
    room_id text collate "C",
    event_id text collate "C",
    error text not null,
    attempts integer not null,
    position bigint not null,
    quarantined_at timestamptz not null default now(),
    resolved_at timestamptz,
    resolution text
);
comment on table roomserver.quarantine is 'Entries the room server could not judge after three attempts, for a person to read, requeue or dismiss.';
comment on column roomserver.quarantine.entry is 'Entry id in eventlog.events.';
comment on column roomserver.quarantine.room_id is 'Its room.';
comment on column roomserver.quarantine.event_id is 'Its event id.';
comment on column roomserver.quarantine.error is 'The last failure.';
comment on column roomserver.quarantine.attempts is 'How often it was tried.';
comment on column roomserver.quarantine.position is 'Output position of its verdict q.';
comment on column roomserver.quarantine.quarantined_at is 'When it was set aside.';
comment on column roomserver.quarantine.resolved_at is 'When a person requeued or dismissed it; null while it waits.';
comment on column roomserver.quarantine.resolution is 'requeued or dismissed.';
