-- The schemas carry the names of the components; history is for people.
create schema eventlog;
comment on schema eventlog is 'The two logs and what every component shares: entries in, outputs out, positions, epochs.';
create schema roomserver;
comment on schema roomserver is 'Written by the room server alone, in the transaction of its verdicts: state over time, heads, last values.';
create schema writer;
comment on schema writer is 'Secrets and sessions, which are not log entries: accounts, devices, access tokens, filters.';
create schema activity;
comment on schema activity is 'Written by maintenance: what people did by day, counted from the outputs.';
create schema history;
comment on schema history is 'Views and functions for people: rooms, messages, memberships, state at a time. Versioned like an API.';
create schema search;
comment on schema search is 'Written by the reader search: the words of messages.';
create schema userdirectory;
comment on schema userdirectory is 'Written by the reader userdirectory: who can be found by name.';
create schema notifications;
comment on schema notifications is 'Written by the reader notifications: which events notify whom.';
create schema media;
comment on schema media is 'Uploaded files, which are not log entries, and what is made of them: written by writers, thumbnails by the reader media.';
