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

-- Half of a SHA-256 stands for an event id: of 16 bytes and not 44, in a table and an index with a row an event.
create function eventlog.event_key(event_id text) returns uuid
language sql immutable parallel safe
return encode(substring(sha256(convert_to(event_id, 'UTF8')) for 16), 'hex')::uuid;
comment on function eventlog.event_key(text) is 'What stands for an event id in eventlog.event_keys: the first 16 bytes of its SHA-256.';

-- When an entry was appended, to the millisecond.
create function eventlog.entry_time(id bigint) returns timestamptz
language sql immutable strict parallel safe
return to_timestamp((id >> 20) / 1000.0);
comment on function eventlog.entry_time(bigint) is 'When an entry was appended.';
