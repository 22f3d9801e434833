create table eventlog.event_keys (
    key uuid primary key,
    id bigint not null
);
comment on table eventlog.event_keys is 'Where each event id is in the log; unique here, since a partitioned log cannot have a unique event id.';
comment on column eventlog.event_keys.key is 'Stands for the Matrix event id, see eventlog.event_key().';
comment on column eventlog.event_keys.id is 'Entry id in eventlog.events.';
