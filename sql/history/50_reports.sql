create view history.reports as
select eventlog.entry_time(p.entry) as reported_at,
       p.reporter,
       p.room_id,
       p.event_id,
       p.user_id,
       p.reason,
       p.entry as report
from roomserver.reports p;
comment on view history.reports is 'What users have reported: rooms, events and users, with the reasons they gave.';
comment on column history.reports.reported_at is 'When it was reported.';
comment on column history.reports.reporter is 'Who reported it.';
comment on column history.reports.room_id is 'The room reported, or that of the event; null when a user was reported.';
comment on column history.reports.event_id is 'The event reported, if it was one.';
comment on column history.reports.user_id is 'The user reported, if it was one.';
comment on column history.reports.reason is 'The reason given; may be empty. NUL reads as U+10FFFF 0.';
comment on column history.reports.report is 'Number of the report.';
