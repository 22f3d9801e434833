-- The schema is an API: within a version nothing is taken away, renamed or given another meaning. docs/history.md says what is promised.
create function history.version() returns integer
language sql immutable parallel safe
return 1;
comment on function history.version() is 'Version of this schema: it rises when something is taken away or gets another meaning, not when something is added.';
