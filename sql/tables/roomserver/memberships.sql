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
