create table eventlog.positions (
    component text collate "C" not null,
    shard smallint not null,
    position bigint not null,
    lsn pg_lsn not null,
    epoch text collate "C" not null,
    owner uuid,
    pid integer,
    clean boolean not null default true,
    moved_at timestamptz not null default now(),
    primary key (component, shard)
) with (fillfactor = 20);
comment on table eventlog.positions is 'How far each consumer is, written in the transaction of its effects.';
comment on column eventlog.positions.component is 'roomserver, or the reader''s name.';
comment on column eventlog.positions.shard is 'Shard of the log it follows.';
comment on column eventlog.positions.position is 'Last output position written (room server) or processed (readers).';
comment on column eventlog.positions.lsn is 'End of the last commit processed: what may be confirmed to the slot.';
comment on column eventlog.positions.epoch is 'Epoch the position belongs to; an LSN of another epoch means nothing.';
comment on column eventlog.positions.owner is 'Random id of the running consumer; a batch of another owner changes no row, and that consumer stops.';
comment on column eventlog.positions.pid is 'Operating-system process id of the owner, for walden status.';
comment on column eventlog.positions.clean is 'False while a consumer runs: found false at start, entries are tried singly first.';
comment on column eventlog.positions.moved_at is 'When the position last moved; the room server''s: when it last had judged all there was.';
