create table userdirectory.users (
    user_id text collate "C" primary key,
    display_name text,
    avatar_url text,
    words tsvector not null
) with (fillfactor = 85);
create index users_words on userdirectory.users using gin (words);
comment on table userdirectory.users is 'Users who have joined a room known here, with their public names. Owner: the reader userdirectory, which makes it from the log.';
comment on column userdirectory.users.user_id is 'The user.';
comment on column userdirectory.users.display_name is 'Local users: of their profile; others: of the last join seen. NUL-safe; null for none.';
comment on column userdirectory.users.avatar_url is 'Likewise, an mxc URI.';
comment on column userdirectory.users.words is 'Folded words of the name and the user id, each found by its beginning.';

create table userdirectory.public_rooms (
    room bigint primary key
);
comment on table userdirectory.public_rooms is 'Rooms that anyone may join or read, whose members everybody may find.';
comment on column userdirectory.public_rooms.room is 'roomserver.rooms.nid.';
