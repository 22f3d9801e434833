create table eventlog.event_ids (
    event_id text collate "C" primary key,
    id bigint not null
);
comment on table eventlog.event_ids is 'Where each event id is in the log; unique here, since a partitioned log cannot have a unique event id.';
comment on column eventlog.event_ids.event_id is 'Matrix event id.';
comment on column eventlog.event_ids.id is 'Entry id in eventlog.events.';
