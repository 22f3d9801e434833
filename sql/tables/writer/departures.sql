create table writer.departures (
    user_id text collate "C" primary key references writer.accounts (user_id),
    erase boolean not null default false,
    due_at timestamptz not null default now(),
    attempts integer not null default 0
);
comment on table writer.departures is 'Deactivated accounts whose rooms are still to be left. The row goes when that is done.';
comment on column writer.departures.user_id is 'Whose.';
comment on column writer.departures.erase is 'Whether the user asked to be erased.';
comment on column writer.departures.due_at is 'When a process may take it up; one that has done so moves it on by what it may need.';
comment on column writer.departures.attempts is 'How often it was taken up.';
