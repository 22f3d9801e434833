create table notifications.notices (
    room bigint not null,
    timeline bigint not null,
    entry bigint not null,
    event_id text collate "C" not null,
    sender text collate "C" not null,
    thread text collate "C" not null,
    highlight boolean not null,
    actions text not null,
    primary key (room, timeline)
);
create unique index notices_event on notifications.notices (event_id);
comment on table notifications.notices is 'Events that notify, by the default push rules, every member but the sender; the latest of each room. Owner: the reader notifications, which makes it from the log.';
comment on column notifications.notices.room is 'roomserver.rooms.nid.';
comment on column notifications.notices.timeline is 'Order in the room''s timeline.';
comment on column notifications.notices.entry is 'Entry of the event.';
comment on column notifications.notices.event_id is 'Event id.';
comment on column notifications.notices.sender is 'Who sent it, and is not notified.';
comment on column notifications.notices.thread is 'Root of the thread it is in, or main.';
comment on column notifications.notices.highlight is 'Whether it is a highlight for all of them.';
comment on column notifications.notices.actions is 'JSON list of the actions of the rule that matched.';

create table notifications.exceptions (
    user_id text collate "C" not null,
    room bigint not null,
    timeline bigint not null,
    entry bigint not null,
    event_id text collate "C" not null,
    thread text collate "C" not null,
    notify boolean not null,
    highlight boolean not null,
    actions text not null,
    primary key (user_id, room, timeline)
);
create index exceptions_event on notifications.exceptions (event_id);
create index exceptions_room on notifications.exceptions (room, timeline);
comment on table notifications.exceptions is 'What an event does to a user for whom it is something else than for all: who is mentioned or invited, or has rules of their own. The latest of each room.';
comment on column notifications.exceptions.user_id is 'The user.';
comment on column notifications.exceptions.room is 'roomserver.rooms.nid.';
comment on column notifications.exceptions.timeline is 'Order in the room''s timeline.';
comment on column notifications.exceptions.entry is 'Entry of the event.';
comment on column notifications.exceptions.event_id is 'Event id.';
comment on column notifications.exceptions.thread is 'Root of the thread it is in, or main.';
comment on column notifications.exceptions.notify is 'Whether the user is notified; false takes a notice of all away from them.';
comment on column notifications.exceptions.highlight is 'Whether it is a highlight.';
comment on column notifications.exceptions.actions is 'JSON list of the actions of the rule that matched.';
