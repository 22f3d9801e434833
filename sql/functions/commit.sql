-- What the room server decided, as one statement: outputs, heads, state over time, last values, the position moved by
-- compare-and-set, and the wake-up. Any list may be absent. As jsonb the batch is parsed once, not once per list; every string in it is
-- NUL-safe.
create function roomserver.commit_v1(batch jsonb) returns boolean
language plpgsql volatile security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
    in_epoch text;
    head jsonb;
    written boolean := false;
begin
    -- A slot delivers a commit before others can see it, or before a synchronous standby has it: an output may not be there earlier
    -- than its entry. Of these transactions the stream tells the lower half of the number.
    if batch ? 'xids' and exists (
        select from jsonb_array_elements_text(batch -> 'xids') as x (xid),
                    (select pg_current_xact_id()::text::bigint) as c (now_at)
        where not pg_visible_in_snapshot((c.now_at - ((c.now_at - x.xid::bigint) & 4294967295))::text::xid8, pg_current_snapshot())
    ) then
        return false;
    end if;

    -- A batch without an LSN is from the tables: older entries than these may still wait there.
    update eventlog.positions p
    set position = (batch ->> 'to')::bigint, lsn = greatest(p.lsn, (batch ->> 'lsn')::pg_lsn),
        moved_at = case when batch ->> 'lsn' is null then p.moved_at else now() end
    where p.component = 'roomserver' and p.shard = (batch ->> 'shard')::smallint
      and p.owner = (batch ->> 'owner')::uuid and p.position = (batch ->> 'from')::bigint
    returning p.epoch into in_epoch;
    if not found then
        raise exception 'another room server owns shard %', batch ->> 'shard' using errcode = '55006';
    end if;

    if batch ? 'rooms' then
        insert into roomserver.rooms (nid, room_id, room_version, shard)
        select r.nid, r.room_id, r.room_version, (batch ->> 'shard')::smallint
        from jsonb_to_recordset(batch -> 'rooms') as r (nid bigint, room_id text, room_version text);
    end if;

    if batch ? 'outputs' then
        insert into eventlog.outputs (shard, position, kind, entry, room, verdict, timeline, line, reason, annotation)
        select (batch ->> 'shard')::smallint, x.p, x.k, x.e, x.r, x.v, x.t, coalesce(x.l, 0), x.w, x.a
        from jsonb_to_recordset(batch -> 'outputs')
            as x (p bigint, k "char", e bigint, r bigint, v "char", t bigint, l integer, w text, a text)
        order by x.p;
    end if;

    -- The one room of a small batch, which stands: what may insert locks a row before it changes it, and says so in the WAL.
    if jsonb_array_length(batch -> 'heads') = 1 then
        head := batch -> 'heads' -> 0;
        update roomserver.heads h
        set extremities = array(select jsonb_array_elements_text(head -> 'extremities')), depth = (head ->> 'depth')::bigint,
            position = (head ->> 'position')::bigint, state_position = (head ->> 'state_position')::bigint,
            judged_seq = (head ->> 'judged_seq')::bigint, generation = (head ->> 'generation')::integer,
            joined = (head ->> 'joined')::integer, invited = (head ->> 'invited')::integer
        where h.room = (head ->> 'room')::bigint;
        written := found;
    end if;

    if batch ? 'heads' and not written then
        insert into roomserver.heads as h
            (room, extremities, depth, position, state_position, judged_seq, generation, joined, invited)
        select x.room, array(select jsonb_array_elements_text(x.extremities)), x.depth, x.position, x.state_position,
               x.judged_seq, x.generation, x.joined, x.invited
        from jsonb_to_recordset(batch -> 'heads')
            as x (room bigint, extremities jsonb, depth bigint, position bigint, state_position bigint, judged_seq bigint,
                  generation integer, joined integer, invited integer)
        on conflict (room) do update
        set extremities = excluded.extremities, depth = excluded.depth, position = excluded.position,
            state_position = excluded.state_position, judged_seq = excluded.judged_seq, generation = excluded.generation,
            joined = excluded.joined, invited = excluded.invited;
    end if;

    if batch ? 'lines' then
        insert into roomserver.lines (room, line, base_line, base_position)
        select x.room, x.line, 0, x.base_position
        from jsonb_to_recordset(batch -> 'lines') as x (room bigint, line integer, base_position bigint);
    end if;

    if batch ? 'closed' then
        update roomserver.state s
        set valid_to = x.at
        from jsonb_to_recordset(batch -> 'closed') as x (room bigint, line integer, type text, state_key text, at bigint)
        where s.room = x.room and s.line = x.line and s.type = x.type and s.state_key = x.state_key
          and s.valid_to = 9223372036854775807;
    end if;

    if batch ? 'state' then
        insert into roomserver.state (room, line, type, state_key, valid_from, valid_to, entry, membership)
        select x.room, x.line, x.type, x.state_key, x.f, coalesce(x.t, 9223372036854775807), x.entry, x.membership
        from jsonb_to_recordset(batch -> 'state')
            as x (room bigint, line integer, type text, state_key text, f bigint, t bigint, entry bigint, membership "char");
    end if;

    if batch ? 'memberships' then
        insert into roomserver.memberships as m
            (user_id, room, membership, position, entry, sender, joined_at, forgotten)
        select x.user_id, x.room, x.membership, x.position, x.entry, x.sender, x.joined_at, false
        from jsonb_to_recordset(batch -> 'memberships')
            as x (user_id text, room bigint, membership "char", position bigint, entry bigint, sender text, joined_at bigint)
        on conflict (user_id, room) do update
        set membership = excluded.membership, position = excluded.position, entry = excluded.entry, sender = excluded.sender,
            joined_at = coalesce(excluded.joined_at, m.joined_at), forgotten = false;
    end if;

    if batch ? 'redactions' then
        insert into roomserver.redactions (target, redaction, entry, room, position)
        select x.target, x.redaction, x.entry, x.room, x.position
        from jsonb_to_recordset(batch -> 'redactions')
            as x (target text, redaction text, entry bigint, room bigint, position bigint)
        on conflict (target) do nothing;
    end if;

    if batch ? 'early_redactions' then
        insert into roomserver.early_redactions (target, redaction, entry, room, position)
        select x.target, x.redaction, x.entry, x.room, x.position
        from jsonb_to_recordset(batch -> 'early_redactions')
            as x (target text, redaction text, entry bigint, room bigint, position bigint)
        on conflict do nothing;
    end if;

    if batch ? 'relations' then
        insert into roomserver.relations (target, rel_type, timeline, entry, room, event_id, sender)
        select x.target, x.rel_type, x.timeline, x.entry, x.room, x.event_id,
               coalesce(x.sender, (select e.sender from eventlog.events e where e.id = x.entry limit 1))
        from jsonb_to_recordset(batch -> 'relations')
            as x (target text, rel_type text, timeline bigint, entry bigint, room bigint, event_id text, sender text)
        on conflict do nothing;
    end if;

    if batch ? 'resolutions' then
        insert into roomserver.resolutions (room, position, purpose, algorithm, inputs, outcome)
        select x.room, x.position, x.purpose, x.algorithm, x.inputs, x.outcome
        from jsonb_to_recordset(batch -> 'resolutions')
            as x (room bigint, position bigint, purpose text, algorithm text, inputs text, outcome text);
    end if;

    if batch ? 'receipts' then
        insert into roomserver.receipts as r
            (room, user_id, receipt_type, thread_id, event_id, event_position, ts, shard, position)
        select x.room, x.user_id, x.receipt_type, x.thread_id, x.event_id, x.event_position, x.ts,
               (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'receipts')
            as x (room bigint, user_id text, receipt_type text, thread_id text, event_id text, event_position bigint, ts bigint,
                  position bigint)
        on conflict (room, user_id, receipt_type, thread_id) do update
        set event_id = excluded.event_id, event_position = excluded.event_position, ts = excluded.ts, shard = excluded.shard,
            position = excluded.position;
    end if;

    if batch ? 'account_data' then
        insert into roomserver.account_data as a (user_id, room_id, type, content, shard, position)
        select x.user_id, x.room_id, x.type, x.content, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'account_data')
            as x (user_id text, room_id text, type text, content text, position bigint)
        on conflict (user_id, room_id, type) do update
        set content = excluded.content, shard = excluded.shard, position = excluded.position;
    end if;

    if batch ? 'profiles' then
        delete from roomserver.profiles f
        using jsonb_to_recordset(batch -> 'profiles') as x (user_id text, field text, value text, position bigint)
        where x.value is null and f.user_id = x.user_id and f.field = x.field;
        insert into roomserver.profiles as f (user_id, field, value, shard, position)
        select x.user_id, x.field, x.value, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'profiles') as x (user_id text, field text, value text, position bigint)
        where x.value is not null
        on conflict (user_id, field) do update
        set value = excluded.value, shard = excluded.shard, position = excluded.position;
    end if;

    if batch ? 'presence' then
        insert into roomserver.presence as p (user_id, presence, status_msg, active_at, until, by, changed, shard, position)
        select x.user_id, x.presence, x.status_msg, x.active_at, x.until, x.by, x.changed, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'presence')
            as x (user_id text, presence text, status_msg text, active_at bigint, until bigint, by text, changed bigint,
                  position bigint)
        on conflict (user_id) do update
        set presence = excluded.presence, status_msg = excluded.status_msg, active_at = excluded.active_at,
            until = excluded.until, by = excluded.by, changed = excluded.changed, shard = excluded.shard,
            position = excluded.position;
    end if;

    if batch ? 'aliases' then
        delete from roomserver.aliases f
        using jsonb_to_recordset(batch -> 'aliases') as x (alias text, room_id text, creator text, position bigint)
        where x.room_id is null and f.alias = x.alias;
        insert into roomserver.aliases (alias, room_id, creator, position)
        select x.alias, x.room_id, x.creator, x.position
        from jsonb_to_recordset(batch -> 'aliases') as x (alias text, room_id text, creator text, position bigint)
        where x.room_id is not null
        on conflict (alias) do update
        set room_id = excluded.room_id, creator = excluded.creator, position = excluded.position;
    end if;

    if batch ? 'directory' then
        delete from roomserver.directory d
        using jsonb_to_recordset(batch -> 'directory') as x (room_id text, published boolean, position bigint)
        where not x.published and d.room_id = x.room_id;
        insert into roomserver.directory (room_id, position)
        select x.room_id, x.position
        from jsonb_to_recordset(batch -> 'directory') as x (room_id text, published boolean, position bigint)
        where x.published
        on conflict (room_id) do update set position = excluded.position;
    end if;

    if batch ? 'erased' then
        insert into roomserver.erased (user_id, shard, position)
        select x.user_id, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'erased') as x (user_id text, position bigint)
        on conflict (user_id) do nothing;
    end if;

    if batch ? 'reports' then
        insert into roomserver.reports (entry, reporter, room_id, event_id, user_id, reason, shard, position)
        select x.entry, x.reporter, x.room_id, x.event_id, x.user_id, x.reason, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'reports')
            as x (entry bigint, reporter text, room_id text, event_id text, user_id text, reason text, position bigint)
        on conflict (entry) do nothing;
    end if;

    if batch ? 'user_keys' then
        delete from roomserver.user_keys k
        using jsonb_to_recordset(batch -> 'user_keys') as x (user_id text, usage text, key_id text, key text)
        where x.key is null and k.user_id = x.user_id and k.usage = x.usage and k.key_id = x.key_id;
        insert into roomserver.user_keys as k (user_id, usage, key_id, key, shard, position)
        select x.user_id, x.usage, x.key_id, x.key, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'user_keys') as x (user_id text, usage text, key_id text, key text, position bigint)
        where x.key is not null
        on conflict (user_id, usage, key_id) do update
        set key = excluded.key, shard = excluded.shard, position = excluded.position;
    end if;

    if batch ? 'device_lists' then
        insert into roomserver.device_lists as d (user_id, shard, position)
        select x.user_id, (batch ->> 'shard')::smallint, x.position
        from jsonb_to_recordset(batch -> 'device_lists') as x (user_id text, position bigint)
        on conflict (user_id) do update set shard = excluded.shard, position = excluded.position;
    end if;

    if batch ? 'to_device' then
        insert into roomserver.to_device (user_id, device_id, shard, position, sender, type, content)
        select x.user_id, x.device_id, (batch ->> 'shard')::smallint, x.position, x.sender, x.type, x.content
        from jsonb_to_recordset(batch -> 'to_device')
            as x (user_id text, device_id text, position bigint, sender text, type text, content text)
        on conflict do nothing;
    end if;

    if batch ? 'received' then
        delete from roomserver.to_device t
        using jsonb_to_recordset(batch -> 'received') as x (user_id text, device_id text, upto bigint[])
        where t.user_id = x.user_id and t.device_id = x.device_id and t.position <= x.upto[t.shard + 1];
    end if;

    if batch ? 'gone_devices' then
        delete from roomserver.to_device t
        using jsonb_to_recordset(batch -> 'gone_devices') as x (user_id text, device_id text, position bigint)
        where t.user_id = x.user_id and t.device_id = x.device_id
          and (t.shard <> (batch ->> 'shard')::smallint or t.position < x.position);
    end if;

    if batch ? 'forgotten' then
        update roomserver.memberships m
        set forgotten = true
        from jsonb_to_recordset(batch -> 'forgotten') as x (user_id text, room bigint)
        where m.user_id = x.user_id and m.room = x.room and m.membership in ('l', 'b');
    end if;

    if batch ? 'quarantined' then
        insert into roomserver.quarantine (entry, room_id, event_id, error, attempts, position)
        select x.entry, x.room_id, x.event_id, x.error, x.attempts, x.position
        from jsonb_to_recordset(batch -> 'quarantined')
            as x (entry bigint, room_id text, event_id text, error text, attempts integer, position bigint);
    end if;

    if batch ? 'deferred' then
        insert into roomserver.deferred (entry, room_id, shard, reason, missing)
        select x.entry, x.room_id, (batch ->> 'shard')::smallint, x.reason, array(select jsonb_array_elements_text(x.missing))
        from jsonb_to_recordset(batch -> 'deferred') as x (entry bigint, room_id text, reason text, missing jsonb)
        on conflict (entry) do update set reason = excluded.reason, missing = excluded.missing;
    end if;

    if batch ? 'finished' then
        delete from roomserver.attempts a
        using jsonb_array_elements_text(batch -> 'finished') as x (entry)
        where a.entry = x.entry::bigint;
        delete from roomserver.deferred d
        using jsonb_array_elements_text(batch -> 'finished') as x (entry)
        where d.entry = x.entry::bigint;
    end if;

    -- See eventlog/notices.py.
    perform pg_notify('walden_outputs', concat_ws(
        ' ', batch ->> 'shard', batch ->> 'from', batch ->> 'to', in_epoch, batch ->> 'accepted'));
    return true;
end
$$;
comment on function roomserver.commit_v1(jsonb) is 'The effects of one room server batch, exactly once: fails with 55006 when another room server owns the shard; false, with nothing done, while an entry of it is not visible yet.';

-- A local event that could not be judged at all still moves its room's chain on: what follows is built on the extremities again.
create function roomserver.break_chain_v1(of_room text, at_seq bigint) returns void
language sql volatile security definer
set search_path = ''
begin atomic
    update roomserver.heads h
    set generation = h.generation + 1, judged_seq = greatest(h.judged_seq, at_seq)
    from roomserver.rooms n
    where n.room_id = of_room and h.room = n.nid;
end;
comment on function roomserver.break_chain_v1(text, bigint) is 'Breaks a room''s local chain after an entry went into quarantine.';
