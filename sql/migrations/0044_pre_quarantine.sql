-- What a person has dealt with leaves the quarantine.
create function roomserver.forget_quarantine(older interval, most integer) returns integer
language sql volatile security definer
set search_path = ''
begin atomic
    with gone as (
        delete from roomserver.quarantine q
        where q.entry = any (array(
            select r.entry from roomserver.quarantine r where r.resolved_at < now() - older limit most))
        returning 1
    )
    select count(*)::integer from gone;
end;
comment on function roomserver.forget_quarantine(interval, integer) is 'Removes quarantined entries that a person dealt with so long ago; returns how many. Called by maintenance.';
