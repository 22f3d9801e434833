-- The first schema: the files under sql/tables and sql/functions as they stood then.

-- The schemas carry the names of the components; history is for people.
create schema eventlog;
comment on schema eventlog is 'The two logs and what every component shares: entries in, outputs out, positions, epochs.';
create schema roomserver;
comment on schema roomserver is 'Written by the room server alone, in the transaction of its verdicts: state over time, heads, last values.';
create schema writer;
comment on schema writer is 'Secrets and sessions, which are not log entries: accounts, devices, access tokens, filters.';
create schema history;
comment on schema history is 'Views and functions for people: rooms, messages, memberships, state at a time. Versioned like an API.';

create table eventlog.epochs (
    ordinal bigint generated always as identity primary key,
    epoch text collate "C" not null unique,
    parent text collate "C" references eventlog.epochs (epoch),
    forked_at bigint[] not null default '{}',
    system_identifier text collate "C" not null,
    timeline integer not null,
    reason text not null,
    began_at timestamptz not null default now()
);
comment on table eventlog.epochs is 'Every stretch of one unbroken history: sync tokens name the epoch they were given in.';
comment on column eventlog.epochs.ordinal is 'Order of beginning; the highest is the current epoch.';
comment on column eventlog.epochs.epoch is 'Random id, part of every sync token.';
comment on column eventlog.epochs.parent is 'The epoch this one forked from; null for the first.';
comment on column eventlog.epochs.forked_at is 'Position per shard up to which the parent''s history is ours.';
comment on column eventlog.epochs.system_identifier is 'IDENTIFY_SYSTEM''s identifier of the cluster the epoch began on.';
comment on column eventlog.epochs.timeline is 'IDENTIFY_SYSTEM''s timeline the epoch began on.';
comment on column eventlog.epochs.reason is 'init, recover, failover: why it began.';
comment on column eventlog.epochs.began_at is 'When it began.';

create table eventlog.event_ids (
    event_id text collate "C" primary key,
    id bigint not null
);
comment on table eventlog.event_ids is 'Where each event id is in the log; unique here, since a partitioned log cannot have a unique event id.';
comment on column eventlog.event_ids.event_id is 'Matrix event id.';
comment on column eventlog.event_ids.id is 'Entry id in eventlog.events.';

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
comment on column eventlog.events.device_id is 'Device whose request appended it; its clients see the transaction id.';
comment on column eventlog.events.txn_id is 'Client transaction id, NUL-safe; null when the request had none.';
comment on column eventlog.events.json is 'The PDU as canonical JSON (kind u: the entry''s own object). Text, for jsonb refuses \u0000.';

create table eventlog.installation (
    only_row boolean primary key default true check (only_row),
    server_name text collate "C" not null,
    signing_key_id text collate "C" not null,
    signing_key text collate "C" not null,
    shards smallint not null check (shards between 1 and 256),
    created_at timestamptz not null default now()
);
comment on table eventlog.installation is 'One row: what may never differ between a database and the server started on it.';
comment on column eventlog.installation.only_row is 'Always true; the primary key on it keeps this a single row.';
comment on column eventlog.installation.server_name is 'The Matrix server name, part of every user id.';
comment on column eventlog.installation.signing_key_id is 'Id of the signing key (ed25519:a_abcd) events are signed with.';
comment on column eventlog.installation.signing_key is 'Its public half, unpadded base64: a server started with another key refuses.';
comment on column eventlog.installation.shards is 'Number of room server shards, fixed at init; raising it is a drained step.';
comment on column eventlog.installation.created_at is 'When init ran.';

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
comment on column eventlog.positions.moved_at is 'When the position last moved.';

create table eventlog.tips (
    room_id text collate "C" primary key,
    event_id text collate "C" not null,
    depth bigint not null,
    seq bigint not null,
    state_seq bigint not null,
    generation integer not null
) with (fillfactor = 50);
comment on table eventlog.tips is 'The local end of each room''s chain, judged or not. Owner: append_v1. One row a room.';
comment on column eventlog.tips.room_id is 'Room id.';
comment on column eventlog.tips.event_id is 'Last event appended by this server: the previous event of the next one.';
comment on column eventlog.tips.depth is 'Its depth.';
comment on column eventlog.tips.seq is 'Its place in the chain.';
comment on column eventlog.tips.state_seq is 'Place of the last state event in the chain; while it is unjudged nothing may follow from another group.';
comment on column eventlog.tips.generation is 'roomserver.heads.generation it was built under; a smaller one means the chain broke and restarts at the extremities.';

create table eventlog.txns (
    key bytea primary key,
    entry bigint not null
);
comment on table eventlog.txns is 'Claimed client transaction ids. Owner: append_v1; maintenance removes claims older than seven days.';
comment on column eventlog.txns.key is 'First 16 bytes of sha256 over user, device, method and path with the transaction id.';
comment on column eventlog.txns.entry is 'Entry that the transaction became; its id tells the time of the claim.';

create table roomserver.rooms (
    nid bigint generated by default as identity primary key,
    room_id text collate "C" not null unique,
    room_version text collate "C" not null,
    shard smallint not null,
    created_at timestamptz not null default now()
);
comment on table roomserver.rooms is 'Every room known here, with the number that stands for it inside the database.';
comment on column roomserver.rooms.nid is 'Number of the room; never leaves the server.';
comment on column roomserver.rooms.room_id is 'Matrix room id.';
comment on column roomserver.rooms.room_version is 'Room version of its create event.';
comment on column roomserver.rooms.shard is 'Shard that judges its events.';
comment on column roomserver.rooms.created_at is 'When this server first knew it.';

create table roomserver.heads (
    room bigint primary key references roomserver.rooms (nid),
    extremities text[] collate "C" not null,
    depth bigint not null,
    position bigint not null,
    state_position bigint not null,
    judged_seq bigint not null,
    generation integer not null default 0,
    joined integer not null default 0,
    invited integer not null default 0
) with (fillfactor = 40);
comment on table roomserver.heads is 'Where each room stands. One row a room, updated in place.';
comment on column roomserver.heads.room is 'roomserver.rooms.nid.';
comment on column roomserver.heads.extremities is 'Forward extremities: accepted events that no accepted event names as previous.';
comment on column roomserver.heads.depth is 'Greatest depth among accepted events.';
comment on column roomserver.heads.position is 'Position of the last output of the room.';
comment on column roomserver.heads.state_position is 'Position at which the current state last changed.';
comment on column roomserver.heads.judged_seq is 'Place in the local chain up to which events are judged.';
comment on column roomserver.heads.generation is 'Counts broken chains: raised when a local event is not accepted.';
comment on column roomserver.heads.joined is 'Number of joined members.';
comment on column roomserver.heads.invited is 'Number of invited members.';

-- State as time: a row per change, valid from one position to the next. The state after position p on a line is every row with
-- valid_from <= p < valid_to; lines other than 0 begin with one flattened difference from their base.
create table roomserver.state (
    room bigint not null,
    line integer not null default 0,
    type text collate "C" not null,
    state_key text collate "C" not null,
    valid_from bigint not null,
    valid_to bigint not null default 9223372036854775807,
    entry bigint,
    event_id text collate "C",
    membership "char"
) with (fillfactor = 90);
create unique index state_key_history on roomserver.state (room, type, state_key, line, valid_from);
create unique index state_current on roomserver.state (room, line, type, state_key) where valid_to = 9223372036854775807;
create index state_changes on roomserver.state (room, valid_from);
create index state_ended on roomserver.state (room, valid_to) where valid_to < 9223372036854775807;
comment on table roomserver.state is 'Room state over time: one row a change, valid_from <= position < valid_to.';
comment on column roomserver.state.room is 'roomserver.rooms.nid.';
comment on column roomserver.state.line is '0: the room''s main line; others belong to forks (roomserver.lines).';
comment on column roomserver.state.type is 'Event type, NUL-safe.';
comment on column roomserver.state.state_key is 'State key, NUL-safe.';
comment on column roomserver.state.valid_from is 'Position from which the row is part of the state after that position.';
comment on column roomserver.state.valid_to is 'Position at which it was replaced; the greatest bigint while it stands.';
comment on column roomserver.state.entry is 'Entry of the state event; null when a resolution removed the key (the row then says: none).';
comment on column roomserver.state.event_id is 'Event id of the state event; null likewise.';
comment on column roomserver.state.membership is 'For m.room.member: j join, i invite, l leave, b ban, k knock; otherwise null.';

create table roomserver.lines (
    room bigint not null references roomserver.rooms (nid),
    line integer not null check (line > 0),
    base_line integer not null,
    base_position bigint not null,
    primary key (room, line)
);
comment on table roomserver.lines is 'State lines off a room''s main line: where each forked from.';
comment on column roomserver.lines.room is 'roomserver.rooms.nid.';
comment on column roomserver.lines.line is 'Number of the line within the room.';
comment on column roomserver.lines.base_line is 'Always 0: a line''s difference is flattened against the main line.';
comment on column roomserver.lines.base_position is 'Position on the base line that the difference is against.';

create table roomserver.memberships (
    user_id text collate "C" not null,
    room bigint not null references roomserver.rooms (nid),
    membership "char" not null,
    position bigint not null,
    entry bigint not null,
    sender text collate "C" not null,
    joined_at bigint,
    forgotten boolean not null default false,
    primary key (user_id, room)
) with (fillfactor = 85);
create index memberships_room on roomserver.memberships (room, membership);
comment on table roomserver.memberships is 'Current membership of each user in each room, derived from the main line of roomserver.state.';
comment on column roomserver.memberships.user_id is 'The member.';
comment on column roomserver.memberships.room is 'roomserver.rooms.nid.';
comment on column roomserver.memberships.membership is 'j join, i invite, l leave, b ban, k knock.';
comment on column roomserver.memberships.position is 'Position at which the membership event became current.';
comment on column roomserver.memberships.entry is 'Entry of the membership event.';
comment on column roomserver.memberships.sender is 'Who sent it: a leave of another sender is a kick.';
comment on column roomserver.memberships.joined_at is 'Position at which the present or last stay in the room began; null if never joined.';
comment on column roomserver.memberships.forgotten is 'The user has forgotten the room since leaving.';

create table roomserver.receipts (
    room bigint not null references roomserver.rooms (nid),
    user_id text collate "C" not null,
    receipt_type text collate "C" not null,
    thread_id text collate "C" not null,
    event_id text collate "C" not null,
    event_position bigint,
    ts bigint not null,
    shard smallint not null,
    position bigint not null,
    primary key (room, user_id, receipt_type, thread_id)
) with (fillfactor = 70);
create index receipts_position on roomserver.receipts (room, position);
comment on table roomserver.receipts is 'Last receipt per room, user, type and thread: the table of record.';
comment on column roomserver.receipts.room is 'roomserver.rooms.nid.';
comment on column roomserver.receipts.user_id is 'Whose receipt.';
comment on column roomserver.receipts.receipt_type is 'm.read, m.read.private.';
comment on column roomserver.receipts.thread_id is 'Thread root, main, or empty for unthreaded.';
comment on column roomserver.receipts.event_id is 'Event it points at.';
comment on column roomserver.receipts.event_position is 'Timeline order of that event when known.';
comment on column roomserver.receipts.ts is 'Milliseconds since 1970 the receipt was sent.';
comment on column roomserver.receipts.shard is 'Shard the position is of.';
comment on column roomserver.receipts.position is 'Output position of the receipt.';

create table roomserver.account_data (
    user_id text collate "C" not null,
    room_id text collate "C" not null,
    type text collate "C" not null,
    content text not null,
    shard smallint not null,
    position bigint not null,
    primary key (user_id, room_id, type)
) with (fillfactor = 70);
comment on table roomserver.account_data is 'Account data, tags (m.tag), read markers (m.fully_read) and push rules (m.push_rules): the table of record.';
comment on column roomserver.account_data.user_id is 'Whose.';
comment on column roomserver.account_data.room_id is 'Room id; empty for global.';
comment on column roomserver.account_data.type is 'Type, NUL-safe.';
comment on column roomserver.account_data.content is 'JSON object as text.';
comment on column roomserver.account_data.shard is 'Shard the position is of.';
comment on column roomserver.account_data.position is 'Output position of the change.';

create table roomserver.profiles (
    user_id text collate "C" not null,
    field text collate "C" not null,
    value text not null,
    shard smallint not null,
    position bigint not null,
    primary key (user_id, field)
);
comment on table roomserver.profiles is 'Profile fields of local users: the table of record.';
comment on column roomserver.profiles.user_id is 'Whose.';
comment on column roomserver.profiles.field is 'displayname, avatar_url or another key name, NUL-safe.';
comment on column roomserver.profiles.value is 'JSON value as text.';
comment on column roomserver.profiles.shard is 'Shard the position is of.';
comment on column roomserver.profiles.position is 'Output position of the change.';

create table roomserver.aliases (
    alias text collate "C" primary key,
    room_id text collate "C" not null,
    creator text collate "C" not null,
    position bigint not null
);
create index aliases_room on roomserver.aliases (room_id);
comment on table roomserver.aliases is 'Room aliases of this server: the table of record.';
comment on column roomserver.aliases.alias is 'Full alias (#name:server).';
comment on column roomserver.aliases.room_id is 'Room it points to.';
comment on column roomserver.aliases.creator is 'User who made it and may remove it.';
comment on column roomserver.aliases.position is 'Output position of the change.';

create table roomserver.directory (
    room_id text collate "C" primary key,
    position bigint not null
);
comment on table roomserver.directory is 'Rooms published in the room directory.';
comment on column roomserver.directory.room_id is 'Room id.';
comment on column roomserver.directory.position is 'Output position of the publication.';

create table roomserver.erased (
    user_id text collate "C" primary key,
    shard smallint not null,
    position bigint not null
);
comment on table roomserver.erased is 'Users who asked to be forgotten: whoever was not in the room when they spoke gets their events redacted.';
comment on column roomserver.erased.user_id is 'The user.';
comment on column roomserver.erased.shard is 'Shard the position is of.';
comment on column roomserver.erased.position is 'Output position of the request.';

create table roomserver.redactions (
    target text collate "C" primary key,
    redaction text collate "C" not null,
    entry bigint not null,
    room bigint not null,
    position bigint not null
);
comment on table roomserver.redactions is 'Applied redactions: rows exist only when both events are known, in one room, and the redaction is allowed.';
comment on column roomserver.redactions.target is 'Redacted event id.';
comment on column roomserver.redactions.redaction is 'Event id of the redaction.';
comment on column roomserver.redactions.entry is 'Entry of the redaction.';
comment on column roomserver.redactions.room is 'roomserver.rooms.nid.';
comment on column roomserver.redactions.position is 'Output position at which it took effect.';

create table roomserver.relations (
    target text collate "C" not null,
    rel_type text collate "C" not null,
    timeline bigint not null,
    entry bigint not null,
    room bigint not null,
    event_id text collate "C" not null,
    primary key (target, rel_type, timeline, event_id)
);
comment on table roomserver.relations is 'Accepted events that relate to another one: edits, reactions, threads, references.';
comment on column roomserver.relations.target is 'Event id related to.';
comment on column roomserver.relations.rel_type is 'm.replace, m.annotation, m.thread, m.reference or another.';
comment on column roomserver.relations.timeline is 'Timeline order of the relating event.';
comment on column roomserver.relations.entry is 'Entry of the relating event.';
comment on column roomserver.relations.room is 'roomserver.rooms.nid.';
comment on column roomserver.relations.event_id is 'Event id of the relating event.';

create table roomserver.resolutions (
    room bigint not null references roomserver.rooms (nid),
    position bigint not null,
    purpose text collate "C" not null,
    algorithm text collate "C" not null,
    inputs text not null,
    outcome text not null,
    resolved_at timestamptz not null default now(),
    primary key (room, position, purpose)
);
comment on table roomserver.resolutions is 'Every state resolution that was not trivial: what went in, what came out, why.';
comment on column roomserver.resolutions.room is 'roomserver.rooms.nid.';
comment on column roomserver.resolutions.position is 'Output position of the event that caused it.';
comment on column roomserver.resolutions.purpose is 'before: the state before that event; current: the room''s current state after it.';
comment on column roomserver.resolutions.algorithm is 'State resolution algorithm: v1, v2, v2.1.';
comment on column roomserver.resolutions.inputs is 'JSON: per branch the event it ends in and its value of each conflicted key.';
comment on column roomserver.resolutions.outcome is 'JSON: the resolved value of each conflicted key, and the reason each refused event was refused.';
comment on column roomserver.resolutions.resolved_at is 'When.';

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

create table roomserver.deferred (
    entry bigint primary key,
    room_id text collate "C" not null,
    shard smallint not null,
    reason text not null,
    missing text[] collate "C" not null default '{}',
    deferred_at timestamptz not null default now()
);
create index deferred_room on roomserver.deferred (room_id, entry);
comment on table roomserver.deferred is 'Entries passed over because they must wait; later entries of their room wait behind them. Owner: the room server.';
comment on column roomserver.deferred.entry is 'Entry id.';
comment on column roomserver.deferred.room_id is 'Its room: later entries of the room are deferred behind it.';
comment on column roomserver.deferred.shard is 'Shard it belongs to.';
comment on column roomserver.deferred.reason is 'resolution: a long state resolution; missing: previous or auth events are not known yet; order: behind another entry of the room.';
comment on column roomserver.deferred.missing is 'Event ids it waits for.';
comment on column roomserver.deferred.deferred_at is 'When it was passed over.';

create table writer.accounts (
    user_id text collate "C" primary key,
    password_hash text,
    admin boolean not null default false,
    guest boolean not null default false,
    deactivated_at timestamptz,
    created_at timestamptz not null default now()
);
comment on table writer.accounts is 'Local accounts.';
comment on column writer.accounts.user_id is 'Matrix user id.';
comment on column writer.accounts.password_hash is 'argon2id hash; null when password login is impossible.';
comment on column writer.accounts.admin is 'Server administrator.';
comment on column writer.accounts.guest is 'Guest account.';
comment on column writer.accounts.deactivated_at is 'When it was deactivated; null while active.';
comment on column writer.accounts.created_at is 'When it was registered.';

create table writer.devices (
    user_id text collate "C" not null references writer.accounts (user_id),
    device_id text collate "C" not null,
    display_name text,
    created_at timestamptz not null default now(),
    last_seen_at timestamptz,
    last_seen_ip text,
    primary key (user_id, device_id)
) with (fillfactor = 80);
comment on table writer.devices is 'Devices of local accounts.';
comment on column writer.devices.user_id is 'Owner.';
comment on column writer.devices.device_id is 'Device id.';
comment on column writer.devices.display_name is 'Name the user gave it, NUL-safe.';
comment on column writer.devices.created_at is 'When it first logged in.';
comment on column writer.devices.last_seen_at is 'Last use, to the minute.';
comment on column writer.devices.last_seen_ip is 'Address of the last use.';

create table writer.sessions (
    token_hash bytea primary key,
    user_id text collate "C" not null,
    device_id text collate "C" not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    refresh_hash bytea unique,
    foreign key (user_id, device_id) references writer.devices (user_id, device_id) on delete cascade
);
create index sessions_device on writer.sessions (user_id, device_id);
comment on table writer.sessions is 'Access tokens, only ever as hashes.';
comment on column writer.sessions.token_hash is 'sha256 of the access token.';
comment on column writer.sessions.user_id is 'Whose.';
comment on column writer.sessions.device_id is 'Of which device.';
comment on column writer.sessions.created_at is 'When it was given out.';
comment on column writer.sessions.expires_at is 'When it ends; null: never.';
comment on column writer.sessions.refresh_hash is 'sha256 of the refresh token that replaces it, if any.';

create table writer.filters (
    user_id text collate "C" not null references writer.accounts (user_id),
    filter_id text collate "C" not null,
    definition text not null,
    primary key (user_id, filter_id)
);
comment on table writer.filters is 'Client filters, immutable, one row for equal definitions of a user. At most 1,000 a user.';
comment on column writer.filters.user_id is 'Whose.';
comment on column writer.filters.filter_id is 'Derived from the hash of the definition.';
comment on column writer.filters.definition is 'Filter as canonical JSON text.';

create table writer.uia_sessions (
    session_id text collate "C" primary key,
    request_hash bytea not null,
    completed text[] collate "C" not null default '{}',
    data text not null default '{}',
    created_at timestamptz not null default now()
);
comment on table writer.uia_sessions is 'User-interactive authentication under way; maintenance removes sessions older than a day.';
comment on column writer.uia_sessions.session_id is 'Random id the client names.';
comment on column writer.uia_sessions.request_hash is 'sha256 of method and path: a session serves one kind of request.';
comment on column writer.uia_sessions.completed is 'Stages completed.';
comment on column writer.uia_sessions.data is 'JSON: what a completed stage left (the registration token, the new user id).';
comment on column writer.uia_sessions.created_at is 'When it began.';

create table writer.registration_tokens (
    token text collate "C" primary key,
    uses_allowed integer,
    pending integer not null default 0,
    completed integer not null default 0,
    expires_at timestamptz
);
comment on table writer.registration_tokens is 'Tokens that allow a registration.';
comment on column writer.registration_tokens.token is 'The token itself: it is shared with people by design.';
comment on column writer.registration_tokens.uses_allowed is 'How often it may be used; null: any number.';
comment on column writer.registration_tokens.pending is 'Registrations under way with it.';
comment on column writer.registration_tokens.completed is 'Registrations completed with it.';
comment on column writer.registration_tokens.expires_at is 'When it ends; null: never.';

-- The next entry id: milliseconds since 1970 << 20, plus a number that wraps after a million.
create function eventlog.next_id() returns bigint
language sql volatile parallel unsafe
return ((extract(epoch from clock_timestamp()) * 1000)::bigint << 20) | nextval('eventlog.entry_numbers');
comment on function eventlog.next_id() is 'Makes an entry id: milliseconds since 1970 << 20 | sequence.';

-- The first id that an entry of that moment can have.
create function eventlog.id_at(moment timestamptz) returns bigint
language sql immutable strict parallel safe
return (extract(epoch from moment) * 1000)::bigint << 20;
comment on function eventlog.id_at(timestamptz) is 'Smallest entry id of a moment.';

-- When an entry was appended, to the millisecond.
create function eventlog.entry_time(id bigint) returns timestamptz
language sql immutable strict parallel safe
return to_timestamp((id >> 20) / 1000.0);
comment on function eventlog.entry_time(bigint) is 'When an entry was appended.';

-- The one way into the log for entries built here.
--
-- A batch names the rooms as their writer saw them and the finished events in order. Each room's tip is locked in sorted order;
-- events of a room that has moved on come back as 'moved' and are built again. Claims of transaction ids are made under the same
-- lock, so that two processes cannot claim one id for a room at once. All of it is one statement of one short transaction.
create type eventlog.room_seen as (
    room_id text,
    tip text,
    state_position bigint,
    generation integer
);
comment on type eventlog.room_seen is 'A room as the writer saw it when it built: last local event, position of the current state, generation of the chain. All but the id null: a new room.';

create type eventlog.new_entry as (
    o integer,
    kind "char",
    shard smallint,
    event_id text,
    room_id text,
    type text,
    state_key text,
    sender text,
    device_id text,
    txn_id text,
    key text,
    depth bigint,
    json text
);
comment on type eventlog.new_entry is 'A finished entry: o is its place in the batch, key the hexadecimal claim of its transaction id.';

create function eventlog.append_v1(batch jsonb)
returns table (o integer, status text, entry bigint, event_id text)
language plpgsql volatile security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
    seen eventlog.room_seen[] := array(
        select r from jsonb_populate_recordset(null::eventlog.room_seen, batch -> 'rooms') as r);
    fresh eventlog.new_entry[] := array(
        select e from jsonb_populate_recordset(null::eventlog.new_entry, batch -> 'entries') as e);
    standing text[];
    -- Places and entries of what was sent before under the same transaction id.
    before_o integer[];
    before_entry bigint[];
begin
    -- Sorted, so that two appends cannot wait for each other.
    perform from eventlog.tips t
    where t.room_id = any (array(select r.room_id from unnest(seen) as r))
    order by t.room_id
    for update;

    -- A statement of its own, for its snapshot must be younger than the locks.
    select array_agg(r.room_id) into standing
    from unnest(seen) as r
    left join eventlog.tips t on t.room_id = r.room_id
    left join roomserver.rooms n on n.room_id = r.room_id
    left join roomserver.heads h on h.room = n.nid
    where (r.state_position is null and t.room_id is null and h.room is null)
       or (r.state_position = h.state_position
           and r.generation = h.generation
           and r.tip is not distinct from t.event_id
           and coalesce(t.state_seq <= h.judged_seq, true));

    select array_agg(e.o), array_agg(c.entry) into before_o, before_entry
    from unnest(fresh) as e
    join eventlog.txns c on c.key = decode(e.key, 'hex')
    where e.key is not null;

    return query
    with entries as (
        select e.o, e.kind, e.shard, e.event_id, e.room_id, e.type, e.state_key, e.sender, e.device_id, e.txn_id,
               decode(e.key, 'hex') as key, e.depth, e.json
        from unnest(fresh) as e
    ),
    -- An event that was sent before breaks the chain built on it: what follows in its room is to be built again.
    before as (
        select b.o, b.entry, e.kind, e.room_id
        from unnest(before_o, before_entry) as b (o, entry)
        join unnest(fresh) as e on e.o = b.o
    ),
    chosen as materialized (
        select e.*, eventlog.next_id() as id,
               row_number() over (partition by e.kind = 'u', e.room_id order by e.o) as place
        from entries e
        where (e.kind = 'u' and not exists (select from before b where b.o = e.o))
           or (e.kind <> 'u' and e.room_id = any (standing)
               and not exists (select from before b where b.kind <> 'u' and b.room_id = e.room_id and b.o <= e.o))
        order by e.o
    ),
    placed as materialized (
        select c.*, case when c.kind <> 'u' then coalesce(t.seq, 0) + c.place end as seq
        from chosen c
        left join eventlog.tips t on c.kind <> 'u' and t.room_id = c.room_id
    ),
    last_of_room as (
        select distinct on (p.room_id) p.room_id, p.event_id, p.depth, p.seq
        from placed p
        where p.kind <> 'u'
        order by p.room_id, p.seq desc
    ),
    moved_tips as (
        insert into eventlog.tips as t (room_id, event_id, depth, seq, state_seq, generation)
        select l.room_id, l.event_id, l.depth, l.seq,
               coalesce((select max(p.seq) from placed p where p.room_id = l.room_id and p.kind = 's' and p.state_key is not null), 0),
               coalesce((select r.generation from unnest(seen) as r where r.room_id = l.room_id), 0)
        from last_of_room l
        on conflict (room_id) do update
        set event_id = excluded.event_id, depth = excluded.depth, seq = excluded.seq,
            state_seq = greatest(t.state_seq, excluded.state_seq), generation = excluded.generation
    ),
    ids as (
        insert into eventlog.event_ids (event_id, id)
        select p.event_id, p.id from placed p where p.event_id is not null
    ),
    claims as (
        insert into eventlog.txns (key, entry)
        select p.key, p.id from placed p where p.key is not null
    ),
    logged as (
        insert into eventlog.events
            (id, kind, shard, local, seq, event_id, room_id, type, state_key, sender, device_id, txn_id, json)
        select p.id, p.kind, p.shard, true, p.seq, p.event_id, p.room_id, p.type, p.state_key, p.sender, p.device_id, p.txn_id, p.json
        from placed p
        order by p.o
    )
    select e.o, case when p.o is not null then 'appended' else 'moved' end, p.id, p.event_id
    from entries e
    left join placed p on p.o = e.o
    where not exists (select from before b where b.o = e.o);

    if before_o is not null then
        -- Apart, for the statement above should not have to open every partition.
        return query
        select b.o, 'duplicate', b.entry, x.event_id
        from unnest(before_o, before_entry) as b (o, entry)
        join eventlog.events x on x.id = b.entry;
    end if;
end
$$;
comment on function eventlog.append_v1(jsonb) is 'Appends a batch: {rooms: [room_seen], entries: [new_entry]}. Answers per entry, in any order: appended, duplicate (of an earlier transaction id) or moved (build it again).';

-- Claims that came back stale or rejected are given to the event that is built in their place.
create function eventlog.release_v1(keys text[], entries bigint[]) returns integer
language sql volatile security definer
set search_path = ''
begin atomic
    with released as (
        delete from eventlog.txns c
        using unnest(keys, entries) as k (key, entry)
        where c.key = decode(k.key, 'hex') and c.entry = k.entry
          and exists (select from eventlog.outputs o where o.entry = k.entry and o.verdict <> 'a')
        returning 1
    )
    select count(*)::integer from released;
end;
comment on function eventlog.release_v1(text[], bigint[]) is 'Frees claims of entries that were judged and not accepted, so that their events can be built again under the same transaction id.';

-- What the room server decided, as one statement: outputs, heads, state over time, last values, the position moved by
-- compare-and-set, and the wake-up. Any list may be absent. As jsonb the batch is parsed once, not once per list; every string in it is
-- NUL-safe.
create function roomserver.commit_v1(batch jsonb) returns boolean
language plpgsql volatile security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
    in_epoch text;
begin
    -- A slot delivers a commit before others can see it, or before a synchronous standby has it: an output may not be there earlier
    -- than its entry. Of these transactions the stream tells the lower half of the number.
    if batch ? 'xids' and exists (
        select from jsonb_array_elements_text(batch -> 'xids') as x (xid),
                    (select pg_current_xact_id()::text::bigint) as c (now_at)
        where not pg_visible_in_snapshot((c.now_at - ((c.now_at - x.xid::bigint) & 4294967295))::text::xid8, pg_current_snapshot())
    ) then
        return false;
    end if;

    update eventlog.positions p
    set position = (batch ->> 'to')::bigint, lsn = greatest(p.lsn, (batch ->> 'lsn')::pg_lsn), moved_at = now()
    where p.component = 'roomserver' and p.shard = (batch ->> 'shard')::smallint
      and p.owner = (batch ->> 'owner')::uuid and p.position = (batch ->> 'from')::bigint
    returning p.epoch into in_epoch;
    if not found then
        raise exception 'another room server owns shard %', batch ->> 'shard' using errcode = '55006';
    end if;

    if batch ? 'rooms' then
        insert into roomserver.rooms (nid, room_id, room_version, shard)
        select r.nid, r.room_id, r.room_version, (batch ->> 'shard')::smallint
        from jsonb_to_recordset(batch -> 'rooms') as r (nid bigint, room_id text, room_version text);
    end if;

    if batch ? 'outputs' then
        insert into eventlog.outputs (shard, position, kind, entry, room, verdict, timeline, line, reason, annotation)
        select (batch ->> 'shard')::smallint, x.p, x.k, x.e, x.r, x.v, x.t, coalesce(x.l, 0), x.w, x.a
        from jsonb_to_recordset(batch -> 'outputs')
            as x (p bigint, k "char", e bigint, r bigint, v "char", t bigint, l integer, w text, a text)
        order by x.p;
    end if;

    if batch ? 'heads' then
        insert into roomserver.heads as h
            (room, extremities, depth, position, state_position, judged_seq, generation, joined, invited)
        select x.room, array(select jsonb_array_elements_text(x.extremities)), x.depth, x.position, x.state_position,
               x.judged_seq, x.generation, x.joined, x.invited
        from jsonb_to_recordset(batch -> 'heads')
            as x (room bigint, extremities jsonb, depth bigint, position bigint, state_position bigint, judged_seq bigint,
                  generation integer, joined integer, invited integer)
        on conflict (room) do update
        set extremities = excluded.extremities, depth = excluded.depth, position = excluded.position,
            state_position = excluded.state_position, judged_seq = excluded.judged_seq, generation = excluded.generation,
            joined = excluded.joined, invited = excluded.invited;
    end if;

    if batch ? 'lines' then
        insert into roomserver.lines (room, line, base_line, base_position)
        select x.room, x.line, 0, x.base_position
        from jsonb_to_recordset(batch -> 'lines') as x (room bigint, line integer, base_position bigint);
    end if;

    if batch ? 'closed' then
        update roomserver.state s
        set valid_to = x.at
        from jsonb_to_recordset(batch -> 'closed') as x (room bigint, line integer, type text, state_key text, at bigint)
        where s.room = x.room and s.line = x.line and s.type = x.type and s.state_key = x.state_key
          and s.valid_to = 9223372036854775807;
    end if;

    if batch ? 'state' then
        insert into roomserver.state (room, line, type, state_key, valid_from, valid_to, entry, event_id, membership)
        select x.room, x.line, x.type, x.state_key, x.f, coalesce(x.t, 9223372036854775807), x.entry, x.event_id, x.membership
        from jsonb_to_recordset(batch -> 'state')
            as x (room bigint, line integer, type text, state_key text, f bigint, t bigint, entry bigint, event_id text,
                  membership "char");
    end if;

    if batch ? 'memberships' then
        insert into roomserver.memberships as m
            (user_id, room, membership, position, entry, sender, joined_at, forgotten)
        select x.user_id, x.room, x.membership, x.position, x.entry, x.sender, x.joined_at, false
        from jsonb_to_recordset(batch -> 'memberships')
            as x (user_id text, room bigint, membership "char", position bigint, entry bigint, sender text, joined_at bigint)
        on conflict (user_id, room) do update
        set membership = excluded.membership, position = excluded.position, entry = excluded.entry, sender = excluded.sender,
            joined_at = coalesce(excluded.joined_at, m.joined_at), forgotten = false;
    end if;

    if batch ? 'redactions' then
        insert into roomserver.redactions (target, redaction, entry, room, position)
        select x.target, x.redaction, x.entry, x.room, x.position
        from jsonb_to_recordset(batch -> 'redactions')
            as x (target text, redaction text, entry bigint, room bigint, position bigint)
        on conflict (target) do nothing;
    end if;

    if batch ? 'relations' then
        insert into roomserver.relations (target, rel_type, timeline, entry, room, event_id)
        select x.target, x.rel_type, x.timeline, x.entry, x.room, x.event_id
        from jsonb_to_recordset(batch -> 'relations')
            as x (target text, rel_type text, timeline bigint, entry bigint, room bigint, event_id text)
        on conflict do nothing;
    end if;

    if batch ? 'resolutions' then
        insert into roomserver.resolutions (room, position, purpose, algorithm, inputs, outcome)
        select x.room, x.position, x.purpose, x.algorithm, x.inputs, x.outcome
        from jsonb_to_recordset(batch -> 'resolutions')
            as x (room bigint, position bigint, purpose text, algorithm text, inputs text, outcome text);
    end if;

    if batch ? 'receipts' then
        insert into roomserver.receipts as r
            (room, user_id, receipt_type, thread_id, event_id, event_position, ts, shard, position)
        select x.room, x.user_id, x.receipt_type, x.thread_id, x.event_id, x.event_position, x.ts,
               (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'receipts')
            as x (room bigint, user_id text, receipt_type text, thread_id text, event_id text, event_position bigint, ts bigint,
                  position bigint)
        on conflict (room, user_id, receipt_type, thread_id) do update
        set event_id = excluded.event_id, event_position = excluded.event_position, ts = excluded.ts, shard = excluded.shard,
            position = excluded.position;
    end if;

    if batch ? 'account_data' then
        insert into roomserver.account_data as a (user_id, room_id, type, content, shard, position)
        select x.user_id, x.room_id, x.type, x.content, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'account_data')
            as x (user_id text, room_id text, type text, content text, position bigint)
        on conflict (user_id, room_id, type) do update
        set content = excluded.content, shard = excluded.shard, position = excluded.position;
    end if;

    if batch ? 'profiles' then
        delete from roomserver.profiles f
        using jsonb_to_recordset(batch -> 'profiles') as x (user_id text, field text, value text, position bigint)
        where x.value is null and f.user_id = x.user_id and f.field = x.field;
        insert into roomserver.profiles as f (user_id, field, value, shard, position)
        select x.user_id, x.field, x.value, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'profiles') as x (user_id text, field text, value text, position bigint)
        where x.value is not null
        on conflict (user_id, field) do update
        set value = excluded.value, shard = excluded.shard, position = excluded.position;
    end if;

    if batch ? 'aliases' then
        delete from roomserver.aliases f
        using jsonb_to_recordset(batch -> 'aliases') as x (alias text, room_id text, creator text, position bigint)
        where x.room_id is null and f.alias = x.alias;
        insert into roomserver.aliases (alias, room_id, creator, position)
        select x.alias, x.room_id, x.creator, x.position
        from jsonb_to_recordset(batch -> 'aliases') as x (alias text, room_id text, creator text, position bigint)
        where x.room_id is not null
        on conflict (alias) do update
        set room_id = excluded.room_id, creator = excluded.creator, position = excluded.position;
    end if;

    if batch ? 'directory' then
        delete from roomserver.directory d
        using jsonb_to_recordset(batch -> 'directory') as x (room_id text, published boolean, position bigint)
        where not x.published and d.room_id = x.room_id;
        insert into roomserver.directory (room_id, position)
        select x.room_id, x.position
        from jsonb_to_recordset(batch -> 'directory') as x (room_id text, published boolean, position bigint)
        where x.published
        on conflict (room_id) do update set position = excluded.position;
    end if;

    if batch ? 'erased' then
        insert into roomserver.erased (user_id, shard, position)
        select x.user_id, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'erased') as x (user_id text, position bigint)
        on conflict (user_id) do nothing;
    end if;

    if batch ? 'forgotten' then
        update roomserver.memberships m
        set forgotten = true
        from jsonb_to_recordset(batch -> 'forgotten') as x (user_id text, room bigint)
        where m.user_id = x.user_id and m.room = x.room and m.membership in ('l', 'b');
    end if;

    if batch ? 'quarantined' then
        insert into roomserver.quarantine (entry, room_id, event_id, error, attempts, position)
        select x.entry, x.room_id, x.event_id, x.error, x.attempts, x.position
        from jsonb_to_recordset(batch -> 'quarantined')
            as x (entry bigint, room_id text, event_id text, error text, attempts integer, position bigint);
    end if;

    if batch ? 'deferred' then
        insert into roomserver.deferred (entry, room_id, shard, reason, missing)
        select x.entry, x.room_id, (batch ->> 'shard')::smallint, x.reason, array(select jsonb_array_elements_text(x.missing))
        from jsonb_to_recordset(batch -> 'deferred') as x (entry bigint, room_id text, reason text, missing jsonb)
        on conflict (entry) do update set reason = excluded.reason, missing = excluded.missing;
    end if;

    if batch ? 'finished' then
        delete from roomserver.attempts a
        using jsonb_array_elements_text(batch -> 'finished') as x (entry)
        where a.entry = x.entry::bigint;
        delete from roomserver.deferred d
        using jsonb_array_elements_text(batch -> 'finished') as x (entry)
        where d.entry = x.entry::bigint;
    end if;

    -- See eventlog/notices.py.
    perform pg_notify('walden_outputs', concat_ws(
        ' ', batch ->> 'shard', batch ->> 'from', batch ->> 'to', in_epoch, batch ->> 'accepted'));
    return true;
end
$$;
comment on function roomserver.commit_v1(jsonb) is 'The effects of one room server batch, exactly once: fails with 55006 when another room server owns the shard; false, with nothing done, while an entry of it is not visible yet.';

-- A local event that could not be judged at all still moves its room's chain on: what follows is built on the extremities again.
create function roomserver.break_chain_v1(of_room text, at_seq bigint) returns void
language sql volatile security definer
set search_path = ''
begin atomic
    update roomserver.heads h
    set generation = h.generation + 1, judged_seq = greatest(h.judged_seq, at_seq)
    from roomserver.rooms n
    where n.room_id = of_room and h.room = n.nid;
end;
comment on function roomserver.break_chain_v1(text, bigint) is 'Breaks a room''s local chain after an entry went into quarantine.';

-- The query interface of the room server: what a writer needs to build the next event of a room, in one snapshot.
-- asked: [{"room_id": text, "keys": [[type, state_key], …]}]
create function roomserver.view_v1(asked json)
returns table (
    room_id text, nid bigint, room_version text, extremities text[], depth bigint, "position" bigint, state_position bigint,
    judged_seq bigint, generation integer, joined integer, invited integer,
    tip text, tip_depth bigint, tip_seq bigint, tip_state_seq bigint, tip_generation integer, state text)
language sql stable security definer
set search_path = ''
begin atomic
    select n.room_id, n.nid, n.room_version, h.extremities, h.depth, h.position, h.state_position,
           h.judged_seq, h.generation, h.joined, h.invited,
           t.event_id, t.depth, t.seq, t.state_seq, t.generation,
           (select json_agg(json_build_array(s.event_id, e.json::json))
            from json_array_elements(a.keys) as k (pair)
            join roomserver.state s on s.room = n.nid and s.line = 0 and s.type = k.pair ->> 0 and s.state_key = k.pair ->> 1
                and s.valid_to = 9223372036854775807
            join eventlog.events e on e.id = s.entry and e.kind = 's')::text
    from json_to_recordset(asked) as a (room_id text, keys json)
    join roomserver.rooms n on n.room_id = a.room_id
    join roomserver.heads h on h.room = n.nid
    left join eventlog.tips t on t.room_id = a.room_id;
end;
comment on function roomserver.view_v1(json) is 'Rooms as they stand, for building on: head, local tip, and the state events asked for as [event id, PDU] pairs.';

-- The room's state after a position on a line, as rows of the temporal table.
create function roomserver.state_at_v1(of_room bigint, of_line integer, after_position bigint)
returns table (type text, state_key text, event_id text, entry bigint, valid_from bigint)
language sql stable security definer
set search_path = ''
begin atomic
    with own as (
        select s.type, s.state_key, s.event_id, s.entry, s.valid_from
        from roomserver.state s
        where s.room = of_room and s.line = of_line and s.valid_from <= after_position and s.valid_to > after_position
    )
    select o.type, o.state_key, o.event_id, o.entry, o.valid_from from own o where o.event_id is not null
    union all
    select s.type, s.state_key, s.event_id, s.entry, s.valid_from
    from roomserver.lines l
    join roomserver.state s on s.room = l.room and s.line = 0
        and s.valid_from <= l.base_position and s.valid_to > l.base_position and s.event_id is not null
    where of_line > 0 and l.room = of_room and l.line = of_line
      and not exists (select from own o where o.type = s.type and o.state_key = s.state_key);
end;
comment on function roomserver.state_at_v1(bigint, integer, bigint) is 'State of a room after a position on a line; state keys that a fork removed are left out.';

-- Partitions from now to a moment ahead: state yearly, messages monthly, user entries weekly, ephemeral outputs daily.
create function eventlog.make_partitions(ahead interval default '3 months') returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    span record;
    starts timestamp;
    name text;
    stray boolean;
    made integer := 0;
begin
    for span in
        select v.parent, v.key, v.unit, v.step from (values
            ('events_s', 'id', 'year', interval '1 year'), ('outputs_s', 'entry', 'year', interval '1 year'),
            ('events_m', 'id', 'month', interval '1 month'), ('outputs_m', 'entry', 'month', interval '1 month'),
            ('events_u', 'id', 'week', interval '1 week'), ('outputs_u', 'entry', 'week', interval '1 week'),
            ('outputs_e', 'entry', 'day', interval '1 day')) as v (parent, key, unit, step)
    loop
        starts := date_trunc(span.unit, now() at time zone 'utc');
        -- Short spans are made for a short time ahead: fifty daily partitions would only cost planning.
        while starts < (now() at time zone 'utc') + least(ahead, span.step * 3) loop
            name := format('%s_%s', span.parent, to_char(starts, 'yyyymmdd'));
            if to_regclass(format('eventlog.%I', name)) is null then
                -- Rows that came while no partition was there stay in the default one, and so does the rest of their span.
                execute format('select exists (select from eventlog.%I where %I >= $1 and %I < $2)', span.parent || '_default',
                    span.key, span.key)
                into stray
                using eventlog.id_at(starts at time zone 'utc'), eventlog.id_at((starts + span.step) at time zone 'utc');
                if stray then
                    starts := starts + span.step;
                    continue;
                end if;
                execute format('create table eventlog.%I partition of eventlog.%I for values from (%s) to (%s)', name, span.parent,
                    eventlog.id_at(starts at time zone 'utc'), eventlog.id_at((starts + span.step) at time zone 'utc'));
                execute format('create trigger append_only_truncate before truncate on eventlog.%I for each statement'
                    ' execute function eventlog.refuse_edit()', name);
                made := made + 1;
            end if;
            starts := starts + span.step;
        end loop;
    end loop;
    return made;
end
$$;
comment on function eventlog.make_partitions(interval) is 'Makes the partitions of the logs ahead of time; returns how many were made. Called by init and by maintenance.';

-- Ephemeral outputs (typing) are of no use once their positions have been passed: their daily partitions go after some days.
-- A short lock_timeout, for a drop that waits makes every query of the log wait behind it; the next call tries again.
create function eventlog.drop_ephemeral(older interval default '3 days') returns integer
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    name text;
    dropped integer := 0;
begin
    perform set_config('lock_timeout', '200ms', true);
    for name in
        select c.relname
        from pg_catalog.pg_inherits i
        join pg_catalog.pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'eventlog.outputs_e'::regclass and c.relname ~ '^outputs_e_[0-9]{8}$'
          and to_date(right(c.relname, 8), 'yyyymmdd') + 1 <= ((now() - older) at time zone 'utc')
        order by c.relname
    loop
        execute format('drop table eventlog.%I', name);
        dropped := dropped + 1;
    end loop;
    return dropped;
end
$$;
comment on function eventlog.drop_ephemeral(interval) is 'Drops the partitions of ephemeral outputs that are older; returns how many. Called by maintenance.';

-- A new stretch of history begins: on a new timeline (a failover) by itself, after a restore by walden recover.
-- LSNs of another timeline mean nothing, so stored ones are dropped; positions go on.
create function eventlog.begin_epoch_v1(new_epoch text, why text, on_system text, on_timeline integer) returns text
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    present record;
begin
    -- One of several room servers begins it; the others find it begun.
    lock table eventlog.epochs in share row exclusive mode;
    select e.epoch, e.system_identifier, e.timeline into present
    from eventlog.epochs e
    order by e.ordinal desc
    limit 1;
    if present.system_identifier = on_system and present.timeline = on_timeline then
        return present.epoch;
    end if;
    insert into eventlog.epochs (epoch, parent, forked_at, system_identifier, timeline, reason)
    select new_epoch, present.epoch,
           array(select p.position from eventlog.positions p where p.component = 'roomserver' order by p.shard),
           on_system, on_timeline, why;
    update eventlog.positions p set epoch = new_epoch, lsn = '0/0';
    return new_epoch;
end
$$;
comment on function eventlog.begin_epoch_v1(text, text, text, integer) is 'Begins an epoch unless the current one is of that system and timeline; returns the current epoch.';

-- The log cannot be edited: not by its owner either, who would have to say so.
create function eventlog.refuse_edit() returns trigger
language plpgsql
as $$
begin
    raise exception '% is append-only: % refused', tg_table_schema || '.' || tg_table_name, lower(tg_op)
        using errcode = '42501', hint = 'Scrubbing is done by walden maintenance, which records what it did.';
end
$$;
comment on function eventlog.refuse_edit() is 'Refuses UPDATE, DELETE and TRUNCATE of the logs.';

create trigger append_only before update or delete on eventlog.events
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.events
for each statement execute function eventlog.refuse_edit();
create trigger append_only before update or delete on eventlog.outputs
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs
for each statement execute function eventlog.refuse_edit();
create trigger append_only before update or delete on eventlog.event_ids
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.event_ids
for each statement execute function eventlog.refuse_edit();

-- A statement's trigger does not fire for a partition that is named itself; a row's is every partition's own. Truncating one has a
-- trigger that eventlog.make_partitions gives it. Dropping one is retention, and another matter.
create trigger append_only_rows before update or delete on eventlog.events
for each row execute function eventlog.refuse_edit();
create trigger append_only_rows before update or delete on eventlog.outputs
for each row execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.events_s_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.events_m_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.events_u_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs_s_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs_m_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs_u_default
for each statement execute function eventlog.refuse_edit();
create trigger append_only_truncate before truncate on eventlog.outputs_e_default
for each statement execute function eventlog.refuse_edit();

-- Reading members out of events' JSON, whatever they hold. Text cannot hold NUL, so extracting a string that has one is an error
-- in PostgreSQL; here it reads as U+10FFFF and "0" (and U+10FFFF itself as U+10FFFF and "1"), the form that event types and
-- state keys have in the tables: eventlog/safe_text.py. A backslash before the escape makes it no escape, hence the look-behind.
create function history.safe_json(document text) returns json
language sql immutable parallel safe
return case
    when position('\u0000' in document) = 0 and position(U&'\+10FFFF' in document) = 0 then document
    else regexp_replace(replace(document, U&'\+10FFFF', U&'\+10FFFF' || '1'),
                        '(?<!\\)((?:\\\\)*)\\u0000', '\1' || U&'\+10FFFF' || '0', 'g')
    end::json;
comment on function history.safe_json(text) is 'JSON that every PostgreSQL function can read: NUL in strings becomes U+10FFFF 0, and U+10FFFF becomes U+10FFFF 1. Takes canonical JSON, as all events are.';

create function history.json_text(document text, variadic path text[]) returns text
language sql immutable parallel safe
return history.safe_json(document) #>> path;
comment on function history.json_text(text, text[]) is 'The member of a JSON text at a path, as text: json_text(document, ''content'', ''body''). Never fails on a string with NUL in it, see safe_json. Null if there is none.';

-- Room ids as people know them, made into the numbers that the tables join by.
create function history.room_number(of_room text) returns bigint
language sql stable strict parallel safe security definer
set search_path = ''
return (select r.nid from roomserver.rooms r where r.room_id = of_room);
comment on function history.room_number(text) is 'The number that stands for a room inside the database; null for a room that is not known here.';

-- What a redaction leaves of a content, in the room version of the event: the same rule as matrix/redaction.py, for people who read
-- state. A test compares the two over all versions.
create function history.redacted_content(event_type text, content jsonb, room_version text) returns jsonb
language sql immutable strict parallel safe
return case
    when event_type = 'm.room.create' and room_version in ('11', '12') then content
    else (
        select coalesce(jsonb_object_agg(k.key, case
                   when k.key = 'third_party_invite' then jsonb_build_object('signed', k.value -> 'signed')
                   else k.value end), '{}')
        from jsonb_each(content) as k
        where case event_type
            when 'm.room.member' then
                k.key = 'membership'
                or (k.key = 'join_authorised_via_users_server' and room_version in ('9', '10', '11', '12'))
                or (k.key = 'third_party_invite' and room_version in ('11', '12')
                    and jsonb_typeof(k.value) = 'object' and k.value ? 'signed')
            when 'm.room.create' then k.key = 'creator'
            when 'm.room.join_rules' then
                k.key = 'join_rule' or (k.key = 'allow' and room_version in ('8', '9', '10', '11', '12'))
            when 'm.room.power_levels' then
                k.key in ('ban', 'events', 'events_default', 'kick', 'redact', 'state_default', 'users', 'users_default')
                or (k.key = 'invite' and room_version in ('11', '12'))
            when 'm.room.history_visibility' then k.key = 'history_visibility'
            when 'm.room.aliases' then k.key = 'aliases' and room_version in ('1', '2', '3', '4', '5')
            when 'm.room.redaction' then k.key = 'redacts' and room_version in ('11', '12')
            else false end)
    end;
comment on function history.redacted_content(text, jsonb, text) is 'What a redaction leaves of the content of an event of a type, by the rules of a room version.';

-- Positions and moments. An output has no time of its own: what it judges was appended at a moment, which the entry's id holds.
-- A state change mostly takes effect with the output of the very event it is due to; one by a resolution, with that of the event
-- that joined the branches.
create function history.change_time(of_shard smallint, at_position bigint, due_to bigint) returns timestamptz
language sql stable parallel safe security definer
set search_path = ''
return case
    when exists (select from eventlog.outputs o where o.entry = due_to and o.kind = 's' and o.position = at_position)
        then eventlog.entry_time(due_to)
    else (
        select eventlog.entry_time(o.entry)
        from eventlog.outputs o
        where o.shard = of_shard and o.position = at_position and o.kind in ('s', 'm')
        limit 1)
    end;
comment on function history.change_time(smallint, bigint, bigint) is 'When a state change at a position of a shard took effect; due_to is the entry it is mostly due to, or null.';

create function history.sent_time(document text) returns timestamptz
language sql immutable parallel safe
return to_timestamp(
    greatest(-62135596800000, least(253402300799999, history.json_text(document, 'origin_server_ts')::numeric)) / 1000);
comment on function history.sent_time(text) is 'When an event was sent, as its sender''s server says; kept within the years 1 to 9999.';

create view history.rooms as
select r.room_id,
       r.room_version,
       case when name_redacted.target is null then history.json_text(name.json, 'content', 'name') end as name,
       case when topic_redacted.target is null then history.json_text(topic.json, 'content', 'topic') end as topic,
       case when alias_redacted.target is null then history.json_text(alias.json, 'content', 'alias') end as canonical_alias,
       coalesce(history.json_text(join_rules.json, 'content', 'join_rule'), 'invite') as join_rule,
       coalesce(history.json_text(visibility.json, 'content', 'history_visibility'), 'shared') as history_visibility,
       encryption.entry is not null as encrypted,
       creation.sender as creator,
       history.sent_time(creation.json) as created_at,
       r.created_at as known_since,
       h.joined as joined_members,
       h.invited as invited_members,
       r.nid as room
from roomserver.rooms r
join roomserver.heads h on h.room = r.nid
left join roomserver.state create_state on create_state.room = r.nid and create_state.line = 0
    and create_state.type = 'm.room.create' and create_state.state_key = '' and create_state.valid_to = 9223372036854775807
left join eventlog.events creation on creation.id = create_state.entry and creation.kind = 's'
left join roomserver.state name_state on name_state.room = r.nid and name_state.line = 0
    and name_state.type = 'm.room.name' and name_state.state_key = '' and name_state.valid_to = 9223372036854775807
left join eventlog.events name on name.id = name_state.entry and name.kind = 's'
left join roomserver.redactions name_redacted on name_redacted.target = name_state.event_id
left join roomserver.state topic_state on topic_state.room = r.nid and topic_state.line = 0
    and topic_state.type = 'm.room.topic' and topic_state.state_key = '' and topic_state.valid_to = 9223372036854775807
left join eventlog.events topic on topic.id = topic_state.entry and topic.kind = 's'
left join roomserver.redactions topic_redacted on topic_redacted.target = topic_state.event_id
left join roomserver.state alias_state on alias_state.room = r.nid and alias_state.line = 0
    and alias_state.type = 'm.room.canonical_alias' and alias_state.state_key = '' and alias_state.valid_to = 9223372036854775807
left join eventlog.events alias on alias.id = alias_state.entry and alias.kind = 's'
left join roomserver.redactions alias_redacted on alias_redacted.target = alias_state.event_id
left join roomserver.state rules_state on rules_state.room = r.nid and rules_state.line = 0
    and rules_state.type = 'm.room.join_rules' and rules_state.state_key = '' and rules_state.valid_to = 9223372036854775807
left join eventlog.events join_rules on join_rules.id = rules_state.entry and join_rules.kind = 's'
left join roomserver.state visibility_state on visibility_state.room = r.nid and visibility_state.line = 0
    and visibility_state.type = 'm.room.history_visibility' and visibility_state.state_key = ''
    and visibility_state.valid_to = 9223372036854775807
left join eventlog.events visibility on visibility.id = visibility_state.entry and visibility.kind = 's'
left join roomserver.state encryption on encryption.room = r.nid and encryption.line = 0
    and encryption.type = 'm.room.encryption' and encryption.state_key = '' and encryption.valid_to = 9223372036854775807;
comment on view history.rooms is 'Every room known here as it is now.';
comment on column history.rooms.room_id is 'Matrix room id.';
comment on column history.rooms.room_version is 'Room version.';
comment on column history.rooms.name is 'Name; null if it has none, or the name was redacted.';
comment on column history.rooms.topic is 'Topic; null if it has none, or the topic was redacted.';
comment on column history.rooms.canonical_alias is 'Main alias; null if it has none.';
comment on column history.rooms.join_rule is 'Who may join: public, invite, knock, restricted, knock_restricted, private.';
comment on column history.rooms.history_visibility is 'Who may read what is said now: world_readable, shared, invited, joined.';
comment on column history.rooms.encrypted is 'Whether messages are to be encrypted.';
comment on column history.rooms.creator is 'Who made it.';
comment on column history.rooms.created_at is 'When it was made, as its creator''s server says.';
comment on column history.rooms.known_since is 'When this server first knew it.';
comment on column history.rooms.joined_members is 'Number of members.';
comment on column history.rooms.invited_members is 'Number of people invited.';
comment on column history.rooms.room is 'The number that stands for it in this schema.';

-- Messages as people see them: the latest valid edit in the place of what was sent, redacted ones without their words.
-- Specification, "Validity of replacement events": same room, same sender, same type, no state key, the original is no edit itself,
-- m.new_content is there; the most recent by origin_server_ts, then by the greatest event id.
create view history.messages as
select e.event_id,
       r.room_id,
       e.sender,
       history.sent_time(e.json) as sent_at,
       eventlog.entry_time(e.id) as received_at,
       e.type,
       case when x.target is not null or e.type = 'm.room.encrypted' then null
           when edit.event_id is not null then edit.msgtype
           else history.json_text(e.json, 'content', 'msgtype') end as msgtype,
       case when x.target is not null or e.type = 'm.room.encrypted' then null
           when edit.event_id is not null then edit.body
           else history.json_text(e.json, 'content', 'body') end as body,
       e.type = 'm.room.encrypted' as encrypted,
       edit.event_id as edit_event_id,
       edit.edited_at,
       x.target is not null as redacted,
       redaction.sender as redacted_by,
       case when again.target is null then history.json_text(redaction.json, 'content', 'reason') end as redaction_reason,
       case when x.target is null and history.json_text(e.json, 'content', 'm.relates_to', 'rel_type') = 'm.thread'
           then history.json_text(e.json, 'content', 'm.relates_to', 'event_id') end as thread,
       case when x.target is null
           then history.json_text(e.json, 'content', 'm.relates_to', 'm.in_reply_to', 'event_id') end as in_reply_to,
       o.timeline as place,
       o.room
from eventlog.outputs o
join eventlog.events e on e.id = o.entry and e.kind = 'm'
join roomserver.rooms r on r.nid = o.room
left join roomserver.redactions x on x.target = e.event_id
left join eventlog.events redaction on redaction.id = x.entry and redaction.kind in ('s', 'm')
left join roomserver.redactions again on again.target = x.redaction
left join lateral (
    select n.event_id,
           history.json_text(n.json, 'content', 'm.new_content', 'msgtype') as msgtype,
           history.json_text(n.json, 'content', 'm.new_content', 'body') as body,
           history.sent_time(n.json) as edited_at
    from roomserver.relations l
    join eventlog.events n on n.id = l.entry and n.kind = 'm'
    where l.target = e.event_id and l.rel_type = 'm.replace' and l.room = o.room
      and n.sender = e.sender and n.type = e.type and x.target is null
      and (n.type = 'm.room.encrypted'
           or json_typeof(history.safe_json(n.json) #> '{content,m.new_content}') = 'object')
      and not exists (select from roomserver.redactions y where y.target = n.event_id)
    order by history.sent_time(n.json) desc, n.event_id desc
    limit 1
) edit on true
where o.kind = 'm' and o.verdict = 'a' and o.timeline is not null
  and e.type in ('m.room.message', 'm.room.encrypted', 'm.sticker')
  and history.json_text(e.json, 'content', 'm.relates_to', 'rel_type') is distinct from 'm.replace';
comment on view history.messages is 'Every message, edits and redactions applied. For one room, history.messages_of(room_id) reads a page without looking at the rest.';
comment on column history.messages.event_id is 'Event id.';
comment on column history.messages.room_id is 'Room it was said in.';
comment on column history.messages.sender is 'Who said it.';
comment on column history.messages.sent_at is 'When it was sent, as the sender''s server says.';
comment on column history.messages.received_at is 'When it was appended to the log here.';
comment on column history.messages.type is 'Event type: m.room.message, m.room.encrypted or m.sticker.';
comment on column history.messages.msgtype is 'Kind of message: m.text, m.image and so on; null if encrypted or redacted.';
comment on column history.messages.body is 'The words, of the latest edit; null if encrypted or redacted. NUL reads as U+10FFFF 0.';
comment on column history.messages.encrypted is 'End-to-end encrypted: this server does not know the words.';
comment on column history.messages.edit_event_id is 'Event id of the latest edit; null if there is none.';
comment on column history.messages.edited_at is 'When the latest edit was sent; null if there is none.';
comment on column history.messages.redacted is 'A redaction took the words away.';
comment on column history.messages.redacted_by is 'Who redacted it.';
comment on column history.messages.redaction_reason is 'The reason given for it; null if none was, or the redaction was redacted.';
comment on column history.messages.thread is 'Event id of the message that began the thread it is in; null if in none.';
comment on column history.messages.in_reply_to is 'Event id of the message it answers; null if none.';
comment on column history.messages.place is 'Order in the room''s timeline; negative for history that was fetched later.';
comment on column history.messages.room is 'The room''s number: history.rooms.room.';

-- Inlined by the planner, so that "order by place desc limit 50" reads fifty rows of an index and no more.
create function history.messages_of(of_room text) returns setof history.messages
language sql stable parallel safe
begin atomic
    select m.event_id, m.room_id, m.sender, m.sent_at, m.received_at, m.type, m.msgtype, m.body, m.encrypted, m.edit_event_id,
           m.edited_at, m.redacted, m.redacted_by, m.redaction_reason, m.thread, m.in_reply_to, m.place, m.room
    from history.messages m
    where m.room = history.room_number(of_room);
end;
comment on function history.messages_of(text) is 'The messages of one room: select sent_at, sender, body from history.messages_of(''!room:server'') order by place desc limit 50.';

create view history.memberships as
select r.room_id,
       s.state_key as user_id,
       case s.membership when 'j' then 'join' when 'i' then 'invite' when 'l' then 'leave' when 'b' then 'ban' when 'k' then 'knock'
           end as membership,
       history.change_time(r.shard, s.valid_from, s.entry) as began_at,
       case when s.valid_to < 9223372036854775807
           then history.change_time(r.shard, s.valid_to, following.entry) end as ended_at,
       e.sender as changed_by,
       case when x.target is null then history.json_text(e.json, 'content', 'reason') end as reason,
       case when x.target is null then history.json_text(e.json, 'content', 'displayname') end as display_name,
       s.event_id,
       s.room
from roomserver.rooms r
join roomserver.state s on s.room = r.nid and s.line = 0 and s.type = 'm.room.member'
join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = s.event_id
left join roomserver.state following on following.room = s.room and following.type = 'm.room.member'
    and following.state_key = s.state_key and following.line = 0 and following.valid_from = s.valid_to;
comment on view history.memberships is 'Who was what in which room, from when to when: a row per membership event that was part of the room''s state.';
comment on column history.memberships.room_id is 'Matrix room id.';
comment on column history.memberships.user_id is 'The member.';
comment on column history.memberships.membership is 'join, invite, leave, ban or knock.';
comment on column history.memberships.began_at is 'From when.';
comment on column history.memberships.ended_at is 'Until when; null while it stands.';
comment on column history.memberships.changed_by is 'Who made the change: of another than the member, an invitation, a kick, a ban.';
comment on column history.memberships.reason is 'The reason given; null if none was, or it was redacted.';
comment on column history.memberships.display_name is 'The name shown in the room meanwhile.';
comment on column history.memberships.event_id is 'The membership event.';
comment on column history.memberships.room is 'The room''s number: history.rooms.room.';

-- A room's state as of a moment. Never an empty answer where nothing is known: before the room was known here, and while
-- others were in it and nobody of this server was, the function fails and says so.
create function history.state_at(of_room text, moment timestamptz)
returns table (type text, state_key text, sender text, since timestamptz, content jsonb, redacted boolean, event_id text)
language plpgsql stable security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
    known roomserver.rooms;
    edge bigint;
    later bigint;
    upto bigint;
    server text := (select i.server_name from eventlog.installation i);
begin
    select r.nid, r.room_id, r.room_version, r.shard, r.created_at into known from roomserver.rooms r where r.room_id = of_room;
    if known.nid is null then
        raise exception 'the room % is not known here', of_room using errcode = 'P0002';
    end if;
    if moment is null or moment > now() then
        raise exception 'the state of % at % is not known yet', of_room, moment using errcode = 'P0002';
    end if;
    -- What was appended after the moment had no effect then, nor had what was judged after it.
    select min(o.timeline) into later
    from (
        select p.timeline
        from eventlog.outputs p
        where p.room = known.nid and p.kind in ('s', 'm') and p.timeline > 0
          and p.entry >= eventlog.id_at(moment + interval '1 millisecond')
        order by p.timeline
        limit 1
    ) o;
    upto := coalesce(later - 1, 9223372036854775806);
    select min(s.valid_from) into edge from roomserver.state s where s.room = known.nid and s.line = 0;
    if edge is null or upto < edge then
        raise exception 'the state of % at % is unknown: the room is known here since %', of_room, moment,
            (select history.change_time(known.shard, edge, null)) using errcode = 'P0002';
    end if;
    if exists (select from roomserver.state s
               where s.room = known.nid and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
                 and s.valid_from <= upto and s.valid_to > upto)
       and not exists (select from roomserver.state s
                       where s.room = known.nid and s.line = 0 and s.type = 'm.room.member' and s.membership = 'j'
                         and s.valid_from <= upto and s.valid_to > upto
                         and substr(s.state_key, strpos(s.state_key, ':') + 1) = server)
    then
        raise exception 'the state of % at % is unknown: nobody of this server was in the room then', of_room, moment
            using errcode = 'P0002';
    end if;
    return query
    select s.type, s.state_key, e.sender, history.change_time(known.shard, s.valid_from, s.entry),
           case when x.target is null then c.content
               else history.redacted_content(s.type, c.content, known.room_version) end,
           x.target is not null, s.event_id
    from roomserver.state s
    join eventlog.events e on e.id = s.entry and e.kind = 's'
    cross join lateral (select history.json_text(e.json, 'content')::jsonb as content) c
    left join roomserver.redactions x on x.target = s.event_id
    where s.room = known.nid and s.line = 0 and s.valid_from <= upto and s.valid_to > upto
    order by s.type, s.state_key;
end
$$;
comment on function history.state_at(text, timestamptz) is 'The state of a room as it was at a moment, redactions applied: select type, state_key, content from history.state_at(''!room:server'', now() - interval ''7 days''). Fails with P0002 where the answer is unknown: before this server knew the room, while nobody of this server was in it, in the future. NUL in strings reads as U+10FFFF 0.';
