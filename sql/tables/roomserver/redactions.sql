create table roomserver.redactions (
    target text collate "C" primary key,
    redaction text collate "C" not null,
    entry bigint not null,
    room bigint not null,
    position bigint not null,
    scrubbed boolean not null default false
);
create index redactions_unscrubbed on roomserver.redactions (entry) where not scrubbed;
comment on table roomserver.redactions is 'Applied redactions: rows exist only when both events are known, in one room, and the redaction is allowed.';
comment on column roomserver.redactions.target is 'Redacted event id.';
comment on column roomserver.redactions.redaction is 'Event id of the redaction.';
comment on column roomserver.redactions.entry is 'Entry of the redaction.';
comment on column roomserver.redactions.room is 'roomserver.rooms.nid.';
comment on column roomserver.redactions.position is 'Output position at which it took effect.';
comment on column roomserver.redactions.scrubbed is 'The content of the redacted event is gone from the log.';
