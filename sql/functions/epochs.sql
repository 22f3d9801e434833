-- A new stretch of history begins: on a new timeline (a failover) by itself, after a restore by walden recover.
-- LSNs of another timeline mean nothing, so stored ones are dropped; positions go on.
create function eventlog.begin_epoch_v1(new_epoch text, why text, on_system text, on_timeline integer) returns text
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    present record;
begin
    -- One of several room servers begins it; the others find it begun.
    lock table eventlog.epochs in share row exclusive mode;
    select e.epoch, e.system_identifier, e.timeline into present
    from eventlog.epochs e
    order by e.ordinal desc
    limit 1;
    if present.system_identifier = on_system and present.timeline = on_timeline then
        return present.epoch;
    end if;
    insert into eventlog.epochs (epoch, parent, forked_at, system_identifier, timeline, reason)
    select new_epoch, present.epoch,
           array(select p.position from eventlog.positions p where p.component = 'roomserver' order by p.shard),
           on_system, on_timeline, why;
    update eventlog.positions p set epoch = new_epoch, lsn = '0/0';
    return new_epoch;
end
$$;
comment on function eventlog.begin_epoch_v1(text, text, text, integer) is 'Begins an epoch unless the current one is of that system and timeline; returns the current epoch.';
