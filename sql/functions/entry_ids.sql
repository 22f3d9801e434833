-- The next entry id: milliseconds since 1970 << 20, plus a number that wraps after a million.
create function eventlog.next_id() returns bigint
language sql volatile parallel unsafe
return ((extract(epoch from clock_timestamp()) * 1000)::bigint << 20) | nextval('eventlog.entry_numbers');
comment on function eventlog.next_id() is 'Makes an entry id: milliseconds since 1970 << 20 | sequence.';

-- The first id that an entry of that moment can have.
create function eventlog.id_at(moment timestamptz) returns bigint
language sql immutable strict parallel safe
return (extract(epoch from moment) * 1000)::bigint << 20;
comment on function eventlog.id_at(timestamptz) is 'Smallest entry id of a moment.';

-- When an entry was appended, to the millisecond.
create function eventlog.entry_time(id bigint) returns timestamptz
language sql immutable strict parallel safe
return to_timestamp((id >> 20) / 1000.0);
comment on function eventlog.entry_time(bigint) is 'When an entry was appended.';
