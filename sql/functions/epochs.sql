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

-- The same for every way in which history parts: a failover, a restore, a planned move. Whatever a component has to do about the
-- future that was lost (what was given out then must not be given out again) belongs here, into the transaction that begins the
-- epoch, so that it happens on every way and exactly once.
create function eventlog.begin_epoch_v2(
    new_epoch text, after_epoch text, why text, on_system text, on_timeline integer, in_database bigint,
    abandoned jsonb default '[]', at_once boolean default true) returns text
language plpgsql volatile security definer
set search_path = ''
as $$
declare
    present text;
begin
    -- One of several begins it; the others find it begun.
    lock table eventlog.epochs in share row exclusive mode;
    select e.epoch into present from eventlog.epochs e order by e.ordinal desc limit 1;
    if present is distinct from after_epoch then
        return present;
    end if;
    -- Epochs of the lost future, so that their tokens are known for what they are.
    insert into eventlog.epochs (epoch, parent, forked_at, system_identifier, timeline, database_oid, reason)
    select a.epoch, a.parent, array(select jsonb_array_elements_text(a.forked_at)::bigint), on_system, on_timeline, in_database,
           'abandoned'
    from jsonb_array_elements(abandoned) with ordinality as x (o, place)
    cross join lateral jsonb_to_record(x.o) as a (epoch text, parent text, forked_at jsonb)
    order by x.place
    on conflict (epoch) do nothing;
    insert into eventlog.epochs (epoch, parent, forked_at, system_identifier, timeline, database_oid, reason, ready_at)
    select new_epoch, present,
           array(select p.position from eventlog.positions p where p.component = 'roomserver' order by p.shard),
           on_system, on_timeline, in_database, why, case when at_once then now() end;
    -- LSNs of another history mean nothing; positions go on.
    update eventlog.positions p set epoch = new_epoch, lsn = '0/0';
    perform pg_catalog.pg_notify('walden_outputs', '');
    return new_epoch;
end
$$;
comment on function eventlog.begin_epoch_v2(text, text, text, text, integer, bigint, jsonb, boolean) is 'Begins an epoch after the one named, unless another has begun; returns the current epoch. abandoned: [{epoch, parent, forked_at}] of lost futures; at_once false: walden recover says when it is ready.';
