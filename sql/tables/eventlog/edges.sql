create table eventlog.edges (
    kind "char" not null check (kind in ('m', 'u')),
    shard smallint not null,
    entry bigint not null,
    position bigint not null,
    primary key (kind, shard)
);
comment on table eventlog.edges is 'Where the logs begin since partitions were dropped: before it only what was kept is there.';
comment on column eventlog.edges.kind is 'Kind of the entries: m or u.';
comment on column eventlog.edges.shard is 'Shard of the log.';
comment on column eventlog.edges.entry is 'Entries with a smaller id are gone, except for what was kept.';
comment on column eventlog.edges.position is 'Greatest output position among what was dropped.';
