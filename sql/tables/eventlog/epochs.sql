create table eventlog.epochs (
    ordinal bigint generated always as identity primary key,
    epoch text collate "C" not null unique,
    parent text collate "C" references eventlog.epochs (epoch),
    forked_at bigint[] not null default '{}',
    system_identifier text collate "C" not null,
    timeline integer not null,
    reason text not null,
    began_at timestamptz not null default now(),
    database_oid bigint,
    ready_at timestamptz default now()
);
comment on table eventlog.epochs is 'Every stretch of one unbroken history: sync tokens name the epoch they were given in.';
comment on column eventlog.epochs.ordinal is 'Order of beginning; the highest is the current epoch.';
comment on column eventlog.epochs.epoch is 'Random id, part of every sync token.';
comment on column eventlog.epochs.parent is 'The epoch this one forked from; null for the first.';
comment on column eventlog.epochs.forked_at is 'Position per shard up to which the parent''s history is ours.';
comment on column eventlog.epochs.system_identifier is 'IDENTIFY_SYSTEM''s identifier of the cluster the epoch began on.';
comment on column eventlog.epochs.timeline is 'IDENTIFY_SYSTEM''s timeline the epoch began on.';
comment on column eventlog.epochs.reason is 'Why it began: init, failover, recover, planned; abandoned: it is known only from the data directory, its rows are lost.';
comment on column eventlog.epochs.began_at is 'When it began.';
comment on column eventlog.epochs.database_oid is 'OID of the database the epoch began in: a copy within the cluster has another. Null: not known.';
comment on column eventlog.epochs.ready_at is 'When what had to follow its beginning was done; null: walden recover was broken off and has to be run again.';
