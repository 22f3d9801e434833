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
