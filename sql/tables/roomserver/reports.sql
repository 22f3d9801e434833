create table roomserver.reports (
    entry bigint primary key,
    reporter text collate "C" not null,
    room_id text collate "C",
    event_id text collate "C",
    user_id text collate "C",
    reason text not null,
    shard smallint not null,
    position bigint not null
);
comment on table roomserver.reports is 'What users have reported to the people who run the server: rooms, events, users. The table of record.';
comment on column roomserver.reports.entry is 'Entry of the report; its id says when it was made.';
comment on column roomserver.reports.reporter is 'Who reported.';
comment on column roomserver.reports.room_id is 'The room reported, or that of the event; null when a user was reported.';
comment on column roomserver.reports.event_id is 'The event reported; null when it was a room or a user.';
comment on column roomserver.reports.user_id is 'The user reported; null when it was a room or an event.';
comment on column roomserver.reports.reason is 'The reason given, NUL-safe; may be empty.';
comment on column roomserver.reports.shard is 'Shard the position is of.';
comment on column roomserver.reports.position is 'Output position of the report.';
