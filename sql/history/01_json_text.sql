-- Reading members out of events' JSON, whatever they hold. Text cannot hold NUL, so extracting a string that has one is an error
-- in PostgreSQL; here it reads as U+10FFFF and "0" (and U+10FFFF itself as U+10FFFF and "1"), the form that event types and
-- state keys have in the tables: eventlog/safe_text.py. A backslash before the escape makes it no escape, hence the look-behind.
create function history.safe_json(document text) returns json
language sql immutable parallel safe
return case
    when position('\u0000' in document) = 0 and position(U&'\+10FFFF' in document) = 0 then document
    else regexp_replace(replace(document, U&'\+10FFFF', U&'\+10FFFF' || '1'),
                        '(?<!\\)((?:\\\\)*)\\u0000', '\1' || U&'\+10FFFF' || '0', 'g')
    end::json;
comment on function history.safe_json(text) is 'JSON that every PostgreSQL function can read: NUL in strings becomes U+10FFFF 0, and U+10FFFF becomes U+10FFFF 1. Takes canonical JSON, as all events are.';

create function history.json_text(document text, variadic path text[]) returns text
language sql immutable parallel safe
return history.safe_json(document) #>> path;
comment on function history.json_text(text, text[]) is 'The member of a JSON text at a path, as text: json_text(document, ''content'', ''body''). Never fails on a string with NUL in it, see safe_json. Null if there is none.';
