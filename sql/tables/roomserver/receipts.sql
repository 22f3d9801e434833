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
