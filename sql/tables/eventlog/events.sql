-- The input log. An id is milliseconds since 1970 shifted left by 20 bits, plus 20 bits of a sequence: a range of ids is a span of
-- time, so partitions by id are partitions by time and a look-up by id prunes to one of them.
create sequence eventlog.entry_numbers as bigint cycle maxvalue 1048575 minvalue 0 start 0 cache 1;

create table eventlog.events (
    id bigint not null,
    kind "char" not null check (kind in ('s', 'm', 'u')),
    shard smallint not null,
    local boolean not null default true,
    seq bigint,
    event_id text collate "C",
    room_id text collate "C",
    type text collate "C" not null,
    state_key text collate "C",
    sender text collate "C" not null,
    device_id text collate "C",
    txn_id text collate "C",
    json text not null,
    primary key (id, kind)
) partition by list (kind);

create table eventlog.events_s partition of eventlog.events for values in ('s') partition by range (id);
create table eventlog.events_m partition of eventlog.events for values in ('m') partition by range (id);
create table eventlog.events_u partition of eventlog.events for values in ('u') partition by range (id);

-- Where rows go should maintenance not have made their partition in time.
create table eventlog.events_s_default partition of eventlog.events_s default;
create table eventlog.events_m_default partition of eventlog.events_m default;
create table eventlog.events_u_default partition of eventlog.events_u default;

comment on table eventlog.events is 'The input log: appended by writers through eventlog.append_v1, consumed by the room server, never changed.';
comment on column eventlog.events.id is 'Entry id: milliseconds since 1970 << 20 | sequence. See eventlog.entry_time().';
comment on column eventlog.events.kind is 's: state and auth events, never age out; m: other room events; u: user entries (receipts, account data, profiles, aliases).';
comment on column eventlog.events.shard is 'Room server shard that judges it: crc32 of the room id (kind u: of the user id), modulo the number of shards.';
comment on column eventlog.events.local is 'Built by this server (and so part of a room''s local chain), or received.';
comment on column eventlog.events.seq is 'Place in the room''s local chain, dense from 1; null for kind u and received events.';
comment on column eventlog.events.event_id is 'Event id; null for kind u.';
comment on column eventlog.events.room_id is 'Room the entry belongs to; null for entries of a user alone.';
comment on column eventlog.events.type is 'Event type, in the NUL-safe form of eventlog.safe text; for kind u the entry type.';
comment on column eventlog.events.state_key is 'State key in NUL-safe form; null when not a state event.';
comment on column eventlog.events.sender is 'Sender''s user id; for kind u the user it belongs to.';
comment on column eventlog.events.device_id is 'Device whose request appended it; its clients see the transaction id. Null for an event without one.';
comment on column eventlog.events.txn_id is 'Client transaction id, NUL-safe; null when the request had none.';
comment on column eventlog.events.json is 'The PDU as canonical JSON (kind u: the entry''s own object). Text, for jsonb refuses \u0000.';
