-- What people did by day, counted by maintenance from the outputs: activity.fold_v1. Its position is that of the component activity.
create table activity.users (
    sender text collate "C" not null,
    day date not null,
    room bigint not null,
    messages integer not null,
    edits integer not null,
    reactions integer not null,
    changes integer not null,
    primary key (sender, day, room)
) with (fillfactor = 80);
comment on table activity.users is 'What a user did in a room on a day.';
comment on column activity.users.sender is 'The user.';
comment on column activity.users.day is 'Day (UTC) on which the entries were appended to the log here.';
comment on column activity.users.room is 'roomserver.rooms.nid.';
comment on column activity.users.messages is 'Messages sent, edits aside; those redacted later included.';
comment on column activity.users.edits is 'Edits of messages.';
comment on column activity.users.reactions is 'Reactions.';
comment on column activity.users.changes is 'State events: memberships, names, settings.';

create table activity.rooms (
    room bigint not null,
    day date not null,
    messages integer not null,
    edits integer not null,
    reactions integer not null,
    changes integer not null,
    senders integer not null,
    primary key (room, day)
) with (fillfactor = 80);
comment on table activity.rooms is 'What happened in a room on a day: the sum of activity.users.';
comment on column activity.rooms.room is 'roomserver.rooms.nid.';
comment on column activity.rooms.day is 'Day (UTC).';
comment on column activity.rooms.messages is 'Messages sent.';
comment on column activity.rooms.edits is 'Edits of messages.';
comment on column activity.rooms.reactions is 'Reactions.';
comment on column activity.rooms.changes is 'State events.';
comment on column activity.rooms.senders is 'Users who did any of it.';

create table activity.days (
    day date primary key,
    messages bigint not null,
    edits bigint not null,
    reactions bigint not null,
    changes bigint not null,
    senders integer not null,
    rooms integer not null
) with (fillfactor = 50);
comment on table activity.days is 'What happened on a day on the whole server: the sum of activity.rooms.';
comment on column activity.days.day is 'Day (UTC).';
comment on column activity.days.messages is 'Messages sent.';
comment on column activity.days.edits is 'Edits of messages.';
comment on column activity.days.reactions is 'Reactions.';
comment on column activity.days.changes is 'State events.';
comment on column activity.days.senders is 'Users who did any of it.';
comment on column activity.days.rooms is 'Rooms in which any of it was done.';
