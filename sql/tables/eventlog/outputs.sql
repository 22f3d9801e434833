create table eventlog.outputs (
    shard smallint not null,
    position bigint not null,
    kind "char" not null check (kind in ('s', 'm', 'u', 'e')),
    entry bigint not null,
    room bigint,
    verdict "char" not null check (verdict in ('a', 'o', 's', 'r', 't', 'q')),
    timeline bigint,
    line integer not null default 0,
    reason text,
    annotation text,
    primary key (entry, kind)
) partition by list (kind);

create table eventlog.outputs_s partition of eventlog.outputs for values in ('s') partition by range (entry);
create table eventlog.outputs_m partition of eventlog.outputs for values in ('m') partition by range (entry);
create table eventlog.outputs_u partition of eventlog.outputs for values in ('u') partition by range (entry);
create table eventlog.outputs_e partition of eventlog.outputs for values in ('e') partition by range (entry);

-- Where rows go should maintenance not have made their partition in time.
create table eventlog.outputs_s_default partition of eventlog.outputs_s default;
create table eventlog.outputs_m_default partition of eventlog.outputs_m default;
create table eventlog.outputs_u_default partition of eventlog.outputs_u default;
create table eventlog.outputs_e_default partition of eventlog.outputs_e default;

create index outputs_position on eventlog.outputs (shard, position);
create index outputs_timeline on eventlog.outputs (room, timeline) where timeline is not null;

comment on table eventlog.outputs is 'The output log: one row a judged entry, appended by the room server, followed by every reader.';
comment on column eventlog.outputs.shard is 'Room server shard that judged it.';
comment on column eventlog.outputs.position is 'Dense per shard, from 1: what sync tokens are made of.';
comment on column eventlog.outputs.kind is 'Kind of the entry; e: an ephemeral output (typing) that has no entry and is dropped within days.';
comment on column eventlog.outputs.entry is 'eventlog.events.id it judges; for kind e an id of its own.';
comment on column eventlog.outputs.room is 'roomserver.rooms.nid; null for entries of a user alone.';
comment on column eventlog.outputs.verdict is 'a accepted, o outlier, s soft-failed, r rejected, t stale (its previous local event was not accepted), q quarantined.';
comment on column eventlog.outputs.timeline is 'Order in the room''s timeline: the position, or negative for backfilled history; null when not part of it.';
comment on column eventlog.outputs.line is 'State line of roomserver.state the event is on; 0 is the room''s main line.';
comment on column eventlog.outputs.reason is 'Why it was not accepted.';
comment on column eventlog.outputs.annotation is 'JSON for readers: state delta, what it replaces, memberships, redaction. Null for plain messages.';
