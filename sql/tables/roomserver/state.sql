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
    membership "char"
);
-- By the end of validity: one row of a key at most has none, so what stands now is a look-up and not a scan of the key's past.
create unique index state_of_key on roomserver.state (room, type, state_key, line, valid_to);
create index state_changes on roomserver.state (room, valid_from);
-- What stands in a room has one value here, and PostgreSQL stores the value of many rows once.
create index state_until on roomserver.state (room, valid_to);
comment on table roomserver.state is 'Room state over time: one row a change, valid_from <= position < valid_to.';
comment on column roomserver.state.room is 'roomserver.rooms.nid.';
comment on column roomserver.state.line is '0: the room''s main line; others belong to forks (roomserver.lines).';
comment on column roomserver.state.type is 'Event type, NUL-safe.';
comment on column roomserver.state.state_key is 'State key, NUL-safe.';
comment on column roomserver.state.valid_from is 'Position from which the row is part of the state after that position.';
comment on column roomserver.state.valid_to is 'Position at which it was replaced; the greatest bigint while it stands.';
comment on column roomserver.state.entry is 'Entry of the state event; null when a resolution removed the key (the row then says: none).';
comment on column roomserver.state.membership is 'For m.room.member: j join, i invite, l leave, b ban, k knock; otherwise null.';
