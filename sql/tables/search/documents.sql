create table search.documents (
    entry bigint primary key,
    room bigint not null,
    timeline bigint not null,
    sent_at bigint not null,
    event_id text collate "C" not null,
    type text collate "C" not null,
    sender text collate "C" not null,
    key text collate "C" not null,
    words tsvector not null
);
create index documents_words on search.documents using gin (words);
create unique index documents_event on search.documents (event_id);
comment on table search.documents is 'What can be found by its words: messages, and names and topics of rooms. Owner: the reader search, which makes it from the log.';
comment on column search.documents.entry is 'Entry of the event.';
comment on column search.documents.room is 'roomserver.rooms.nid.';
comment on column search.documents.timeline is 'Order in the room''s timeline.';
comment on column search.documents.sent_at is 'Milliseconds since 1970 by the clock of the event''s server.';
comment on column search.documents.event_id is 'Event id.';
comment on column search.documents.type is 'Event type.';
comment on column search.documents.sender is 'Who sent it.';
comment on column search.documents.key is 'Where the words stand: content.body, content.name or content.topic.';
comment on column search.documents.words is 'The words, and `!` with the room''s number, so that a search in a few rooms reads what those have.';
