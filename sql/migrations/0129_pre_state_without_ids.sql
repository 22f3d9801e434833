-- The event id of a piece of room state is in the log, and need not stand beside it as well: from here on nothing reads it there.

create or replace function roomserver.view_v1(asked json)
returns table (
    room_id text, nid bigint, room_version text, extremities text[], depth bigint, "position" bigint, state_position bigint,
    judged_seq bigint, generation integer, joined integer, invited integer,
    tip text, tip_depth bigint, tip_seq bigint, tip_state_seq bigint, tip_generation integer, state text)
language sql stable security definer
set search_path = ''
begin atomic
    select n.room_id, n.nid, n.room_version, h.extremities, h.depth, h.position, h.state_position,
           h.judged_seq, h.generation, h.joined, h.invited,
           t.event_id, t.depth, t.seq, t.state_seq, t.generation,
           (select json_agg(json_build_array(e.event_id, e.json::json))
            from json_array_elements(a.keys) as k (pair)
            join roomserver.state s on s.room = n.nid and s.line = 0 and s.type = k.pair ->> 0 and s.state_key = k.pair ->> 1
                and s.valid_to = 9223372036854775807
            join eventlog.events e on e.id = s.entry and e.kind = 's')::text
    from json_to_recordset(asked) as a (room_id text, keys json)
    join roomserver.rooms n on n.room_id = a.room_id
    join roomserver.heads h on h.room = n.nid
    left join eventlog.tips t on t.room_id = a.room_id;
end;

create function roomserver.state_at_v2(of_room bigint, of_line integer, after_position bigint)
returns table (type text, state_key text, entry bigint, valid_from bigint)
language sql stable security definer
set search_path = ''
begin atomic
    with own as (
        select s.type, s.state_key, s.entry, s.valid_from
        from roomserver.state s
        where s.room = of_room and s.line = of_line and s.valid_from <= after_position and s.valid_to > after_position
    )
    select o.type, o.state_key, o.entry, o.valid_from from own o where o.entry is not null
    union all
    select s.type, s.state_key, s.entry, s.valid_from
    from roomserver.lines l
    join roomserver.state s on s.room = l.room and s.line = 0
        and s.valid_from <= l.base_position and s.valid_to > l.base_position and s.entry is not null
    where of_line > 0 and l.room = of_room and l.line = of_line
      and not exists (select from own o where o.type = s.type and o.state_key = s.state_key);
end;

comment on function roomserver.state_at_v2(bigint, integer, bigint) is 'State of a room after a position on a line; state keys that a fork removed are left out.';

create or replace function roomserver.commit_v1(batch jsonb) returns boolean
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

    update eventlog.positions p
    set position = (batch ->> 'to')::bigint, lsn = greatest(p.lsn, (batch ->> 'lsn')::pg_lsn), moved_at = now()
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
        -- Read by code that is older.
        insert into roomserver.state (room, line, type, state_key, valid_from, valid_to, entry, event_id, membership)
        select x.room, x.line, x.type, x.state_key, x.f, coalesce(x.t, 9223372036854775807), x.entry,
               (select e.event_id from eventlog.events e where e.id = x.entry and e.kind = 's'), x.membership
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

create or replace view history.rooms as
select r.room_id,
       r.room_version,
       (select case when x.target is null then history.json_text(e.json, 'content', 'name') end
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = e.event_id
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.name' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as name,
       (select case when x.target is null then history.json_text(e.json, 'content', 'topic') end
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = e.event_id
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.topic' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as topic,
       (select case when x.target is null then history.json_text(e.json, 'content', 'alias') end
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        left join roomserver.redactions x on x.target = e.event_id
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.canonical_alias' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as canonical_alias,
       coalesce((
           select history.json_text(e.json, 'content', 'join_rule')
           from roomserver.state s
           join eventlog.events e on e.id = s.entry and e.kind = 's'
           where s.room = r.nid and s.line = 0 and s.type = 'm.room.join_rules' and s.state_key = ''
             and s.valid_to = 9223372036854775807), 'invite') as join_rule,
       coalesce((
           select history.json_text(e.json, 'content', 'history_visibility')
           from roomserver.state s
           join eventlog.events e on e.id = s.entry and e.kind = 's'
           where s.room = r.nid and s.line = 0 and s.type = 'm.room.history_visibility' and s.state_key = ''
             and s.valid_to = 9223372036854775807), 'shared') as history_visibility,
       -- Not exists (…): the planner would rather read all that is encrypted once.
       coalesce((
           select true
           from roomserver.state s
           where s.room = r.nid and s.line = 0 and s.type = 'm.room.encryption' and s.state_key = ''
             and s.valid_to = 9223372036854775807), false) as encrypted,
       (select e.sender
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.create' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as creator,
       (select history.sent_time(e.json)
        from roomserver.state s
        join eventlog.events e on e.id = s.entry and e.kind = 's'
        where s.room = r.nid and s.line = 0 and s.type = 'm.room.create' and s.state_key = ''
          and s.valid_to = 9223372036854775807) as created_at,
       r.created_at as known_since,
       h.joined as joined_members,
       h.invited as invited_members,
       r.nid as room
from roomserver.rooms r
join roomserver.heads h on h.room = r.nid;

create or replace view history.state_spans as
select s.room, s.line, s.type, s.state_key,
       (select e.event_id from eventlog.events e where e.id = s.entry and e.kind = 's') as event_id,
       s.valid_from as place, s.valid_to as until_place
from roomserver.state s;

create or replace view history.state_changes as
select r.room_id,
       s.type,
       s.state_key,
       e.sender,
       history.change_time(r.shard, s.valid_from, s.entry) as began_at,
       case when s.valid_to < 9223372036854775807 then history.change_time(r.shard, s.valid_to, (
           select f.entry
           from roomserver.state f
           where f.room = s.room and f.type = s.type and f.state_key = s.state_key and f.line = 0 and f.valid_to > s.valid_to
           order by f.valid_to
           limit 1)) end as ended_at,
       case when x.target is null then history.json_text(e.json, 'content')::jsonb
           else history.redacted_content(s.type, history.json_text(e.json, 'content')::jsonb, r.room_version) end as content,
       x.target is not null as redacted,
       e.event_id,
       s.valid_from as place,
       s.valid_to as until_place,
       s.room
from roomserver.rooms r
join roomserver.state s on s.room = r.nid and s.line = 0
join eventlog.events e on e.id = s.entry and e.kind = 's'
left join roomserver.redactions x on x.target = e.event_id;

create or replace view history.memberships as
select r.room_id,
       s.state_key as user_id,
       case s.membership when 'j' then 'join' when 'i' then 'invite' when 'l' then 'leave' when 'b' then 'ban' when 'k' then 'knock'
           end as membership,
       history.change_time(r.shard, s.valid_from, s.entry) as began_at,
       case when s.valid_to < 9223372036854775807 then history.change_time(r.shard, s.valid_to, (
           select f.entry
           from roomserver.state f
           where f.room = s.room and f.type = 'm.room.member' and f.state_key = s.state_key and f.line = 0
             and f.valid_to > s.valid_to
           order by f.valid_to
           limit 1)) end as ended_at,
       (select e.sender from eventlog.events e where e.id = s.entry and e.kind = 's') as changed_by,
       (select history.json_text(e.json, 'content', 'reason')
        from eventlog.events e
        where e.id = s.entry and e.kind = 's'
          and not exists (select from roomserver.redactions x where x.target = e.event_id)) as reason,
       (select history.json_text(e.json, 'content', 'displayname')
        from eventlog.events e
        where e.id = s.entry and e.kind = 's'
          and not exists (select from roomserver.redactions x where x.target = e.event_id)) as display_name,
       (select e.event_id from eventlog.events e where e.id = s.entry and e.kind = 's') as event_id,
       s.room,
       s.valid_from as place,
       s.valid_to as until_place
from roomserver.rooms r
join roomserver.state s on s.room = r.nid and s.line = 0 and s.type = 'm.room.member';

create or replace function history.why_state(of_room text, of_type text, of_key text, moment timestamptz default now(), most integer default 100)
returns table (step integer, kind text, event_id text, type text, state_key text, sender text, received_at timestamptz, content jsonb,
               verdict text, detail jsonb)
language plpgsql stable parallel safe security definer
set search_path = '' set plan_cache_mode = 'force_generic_plan' set enable_seqscan = 'off'
as $$
#variable_conflict use_column
declare
    upto bigint := history.known_place(of_room, moment);
    known roomserver.rooms;
    standing record;
    frontier text[] := '{}';
    chain text[] := '{}';
    levels integer[] := '{}';
    level integer := 0;
    told integer := 0;
    resolutions integer;
begin
    if most is null or most < 2 or most > 10000 then
        raise exception 'why_state tells 2 to 10000 rows, not %', coalesce(most::text, '(null)') using errcode = '22023';
    end if;
    select r.nid, r.room_id, r.room_version, r.shard, r.created_at into known from roomserver.rooms r where r.room_id = of_room;
    select s.valid_from, e.event_id
    into standing
    from roomserver.state s
    left join eventlog.events e on e.id = s.entry and e.kind = 's'
    where s.room = known.nid and s.type = of_type and s.state_key = of_key and s.line = 0 and s.valid_to > upto
    order by s.valid_to
    limit 1;
    if standing.event_id is null or standing.valid_from > upto then
        step := 0; kind := 'absent'; type := of_type; state_key := of_key; told := 1;
        return next;
        -- A resolution may have taken it away: the last one that decided on the key tells.
        select coalesce(max(s.valid_to), 0) into standing.valid_from
        from roomserver.state s
        where s.room = known.nid and s.type = of_type and s.state_key = of_key and s.line = 0 and s.valid_to <= upto;
    else
        frontier := array[standing.event_id];
    end if;

    return query
    select 0, 'resolution', e.event_id, e.type, e.state_key, e.sender, eventlog.entry_time(e.id), null::jsonb, null::text,
           jsonb_build_object(
               'purpose', d.purpose, 'algorithm', d.algorithm, 'branches', d.inputs -> 'branches', 'candidates', d.conflict -> 'candidates',
               'winner', d.conflict -> 'winner',
               'refused', (select jsonb_object_agg(f.key, f.value) from jsonb_each(d.outcome -> 'refused') f
                           where d.conflict -> 'candidates' ? f.key))
    from (
        select x.position, x.purpose, x.algorithm, x.inputs, x.outcome,
               (select c from jsonb_array_elements(x.inputs -> 'conflicts') c
                where c ->> 'type' = of_type and c ->> 'state_key' = of_key limit 1) as conflict
        from (select r.position, r.purpose, r.algorithm, history.safe_json(r.inputs)::jsonb as inputs,
                     history.safe_json(r.outcome)::jsonb as outcome
              from roomserver.resolutions r
              where r.room = known.nid and r.position >= standing.valid_from and r.position <= upto
              order by r.position
              limit 1000) x
    ) d
    left join eventlog.outputs o on o.shard = known.shard and o.position = d.position and o.kind in ('s', 'm')
    left join eventlog.events e on e.id = o.entry and e.kind in ('s', 'm')
    where d.conflict is not null
    order by d.position, d.purpose
    limit greatest(most / 2, 1);
    get diagnostics resolutions = row_count;
    told := told + resolutions;

    -- A level of the chain at a time; rules of the specification keep chains short, and most keeps them bounded. Auth events are state.
    while frontier <> '{}' and cardinality(chain) < most - told loop
        frontier := frontier[:most - told - cardinality(chain)];
        chain := chain || frontier;
        levels := levels || array_fill(level, array[cardinality(frontier)]);
        level := level + 1;
        frontier := array(
            select distinct case when json_typeof(a) = 'array' then a ->> 0 else a #>> '{}' end
            from unnest(frontier) f (event_id)
            join eventlog.event_keys i on i.key = eventlog.event_key(f.event_id)
            join eventlog.events e on e.id = i.id and e.kind = 's' and e.event_id = f.event_id
            cross join json_array_elements(case when json_typeof(history.safe_json(e.json) -> 'auth_events') = 'array'
                then history.safe_json(e.json) -> 'auth_events' else '[]' end) a);
        frontier := array(select f from unnest(frontier) f where f is not null and f <> all (chain));
    end loop;
    return query
    select c.level, case when e.id is null then 'unknown' when c.level = 0 then 'state' else 'auth' end, c.event_id, e.type, e.state_key,
           e.sender, eventlog.entry_time(e.id),
           case when x.target is null then history.json_text(e.json, 'content')::jsonb
               else history.redacted_content(e.type, history.json_text(e.json, 'content')::jsonb, known.room_version) end,
           case o.verdict when 'a' then 'accepted' when 'o' then 'outlier' when 's' then 'soft-failed' when 'r' then 'rejected'
               when 't' then 'stale' when 'q' then 'quarantined' end,
           jsonb_build_object('auth_events', history.safe_json(e.json) -> 'auth_events')
    from unnest(chain, levels) with ordinality c (event_id, level, place)
    left join eventlog.event_keys i on i.key = eventlog.event_key(c.event_id)
    left join eventlog.events e on e.id = i.id and e.kind = 's' and e.event_id = c.event_id
    left join eventlog.outputs o on o.entry = e.id and o.kind = 's'
    left join roomserver.redactions x on x.target = c.event_id
    order by c.level, e.id desc nulls last, c.place;
    if frontier <> '{}' then
        step := level; kind := 'more'; event_id := null; type := null; state_key := null; detail := jsonb_build_object('bound', most);
        return next;
    end if;
end
$$;
