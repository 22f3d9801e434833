create table roomserver.early_redactions (
    target text collate "C" not null,
    redaction text collate "C" not null,
    entry bigint not null,
    room bigint not null,
    position bigint not null,
    primary key (target, redaction)
);
comment on table roomserver.early_redactions is 'Accepted redactions of events that were not known then: looked at when an event comes from another server.';
comment on column roomserver.early_redactions.target is 'Event id it redacts.';
comment on column roomserver.early_redactions.redaction is 'Event id of the redaction.';
comment on column roomserver.early_redactions.entry is 'Entry of the redaction.';
comment on column roomserver.early_redactions.room is 'roomserver.rooms.nid.';
comment on column roomserver.early_redactions.position is 'Output position of the redaction.';
