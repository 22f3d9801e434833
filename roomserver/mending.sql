-- remove_rooms --
-- Takes away rooms that the log does not know. A row that another table still names is refused.
delete from roomserver.rooms t
using json_populate_recordset(null::roomserver.rooms, %(rows)s::json) x
where t.nid = x.nid

-- put_rooms --
-- Puts rooms as the log has them.
insert into roomserver.rooms (nid, room_id, room_version, shard)
select x.nid, x.room_id, x.room_version, x.shard
from json_populate_recordset(null::roomserver.rooms, %(rows)s::json) x
on conflict (nid) do update
set room_id = excluded.room_id, room_version = excluded.room_version, shard = excluded.shard

-- remove_state --
-- Takes away state that never was.
delete from roomserver.state t
using json_populate_recordset(null::roomserver.state, %(rows)s::json) x
where t.room = x.room and t.line = 0 and t.type = x.type and t.state_key = x.state_key and t.valid_from = x.valid_from

-- clear_state --
-- Makes room for state as the log has it: a key has one row from a position, and one until a position.
delete from roomserver.state t
using json_populate_recordset(null::roomserver.state, %(rows)s::json) x
where t.room = x.room and t.line = 0 and t.type = x.type and t.state_key = x.state_key
  and (t.valid_from = x.valid_from or t.valid_to = x.valid_to)

-- put_state --
-- Puts state as the log has it, where room has been made for it.
insert into roomserver.state (room, line, type, state_key, valid_from, valid_to, entry, membership)
select x.room, 0, x.type, x.state_key, x.valid_from, x.valid_to, x.entry, x.membership
from json_populate_recordset(null::roomserver.state, %(rows)s::json) x

-- remove_memberships --
-- Takes away memberships that never were.
delete from roomserver.memberships t
using json_populate_recordset(null::roomserver.memberships, %(rows)s::json) x
where t.user_id = x.user_id and t.room = x.room

-- put_memberships --
-- Puts memberships as the log has them.
insert into roomserver.memberships (user_id, room, membership, position, entry, sender, joined_at, forgotten)
select x.user_id, x.room, x.membership, x.position, x.entry, x.sender, x.joined_at, x.forgotten
from json_populate_recordset(null::roomserver.memberships, %(rows)s::json) x
on conflict (user_id, room) do update
set membership = excluded.membership, position = excluded.position, entry = excluded.entry, sender = excluded.sender,
    joined_at = excluded.joined_at, forgotten = excluded.forgotten

-- remove_heads --
-- Takes away heads of rooms without events.
delete from roomserver.heads t
using json_populate_recordset(null::roomserver.heads, %(rows)s::json) x
where t.room = x.room

-- put_heads --
-- Puts heads as the log has them, and begins another chain: no local event may follow one built on a wrong head.
insert into roomserver.heads as h
    (room, extremities, depth, position, state_position, judged_seq, generation, joined, invited)
select x.room, x.extremities, x.depth, x.position, x.state_position, x.judged_seq, coalesce(t.generation, 0) + 1, x.joined, x.invited
from json_populate_recordset(null::roomserver.heads, %(rows)s::json) x
join roomserver.rooms n on n.nid = x.room
left join eventlog.tips t on t.room_id = n.room_id
on conflict (room) do update
set extremities = excluded.extremities, depth = excluded.depth, position = excluded.position,
    state_position = excluded.state_position, judged_seq = excluded.judged_seq,
    generation = greatest(h.generation + 1, excluded.generation), joined = excluded.joined, invited = excluded.invited

-- remove_receipts --
-- Takes away receipts that never were.
delete from roomserver.receipts t
using json_populate_recordset(null::roomserver.receipts, %(rows)s::json) x
where t.room = x.room and t.user_id = x.user_id and t.receipt_type = x.receipt_type and t.thread_id = x.thread_id

-- put_receipts --
-- Puts receipts as the log has them.
insert into roomserver.receipts (room, user_id, receipt_type, thread_id, event_id, event_position, ts, shard, position)
select x.room, x.user_id, x.receipt_type, x.thread_id, x.event_id, x.event_position, x.ts, x.shard, x.position
from json_populate_recordset(null::roomserver.receipts, %(rows)s::json) x
on conflict (room, user_id, receipt_type, thread_id) do update
set event_id = excluded.event_id, event_position = excluded.event_position, ts = excluded.ts, shard = excluded.shard,
    position = excluded.position

-- remove_account_data --
-- Takes away account data that never was.
delete from roomserver.account_data t
using json_populate_recordset(null::roomserver.account_data, %(rows)s::json) x
where t.user_id = x.user_id and t.room_id = x.room_id and t.type = x.type

-- put_account_data --
-- Puts account data as the log has it.
insert into roomserver.account_data (user_id, room_id, type, content, shard, position)
select x.user_id, x.room_id, x.type, x.content, x.shard, x.position
from json_populate_recordset(null::roomserver.account_data, %(rows)s::json) x
on conflict (user_id, room_id, type) do update
set content = excluded.content, shard = excluded.shard, position = excluded.position

-- remove_profiles --
-- Takes away profile fields that were removed or never set.
delete from roomserver.profiles t
using json_populate_recordset(null::roomserver.profiles, %(rows)s::json) x
where t.user_id = x.user_id and t.field = x.field

-- put_profiles --
-- Puts profile fields as the log has them.
insert into roomserver.profiles (user_id, field, value, shard, position)
select x.user_id, x.field, x.value, x.shard, x.position
from json_populate_recordset(null::roomserver.profiles, %(rows)s::json) x
on conflict (user_id, field) do update
set value = excluded.value, shard = excluded.shard, position = excluded.position

-- remove_presence --
-- Takes away presence that nobody had.
delete from roomserver.presence t
using json_populate_recordset(null::roomserver.presence, %(rows)s::json) x
where t.user_id = x.user_id

-- put_presence --
-- Puts presence as the log has it.
insert into roomserver.presence (user_id, presence, status_msg, active_at, until, by, changed, shard, position)
select x.user_id, x.presence, x.status_msg, x.active_at, x.until, x.by, x.changed, x.shard, x.position
from json_populate_recordset(null::roomserver.presence, %(rows)s::json) x
on conflict (user_id) do update
set presence = excluded.presence, status_msg = excluded.status_msg, active_at = excluded.active_at, until = excluded.until,
    by = excluded.by, changed = excluded.changed, shard = excluded.shard, position = excluded.position

-- remove_aliases --
-- Takes away aliases that were removed or never made.
delete from roomserver.aliases t
using json_populate_recordset(null::roomserver.aliases, %(rows)s::json) x
where t.alias = x.alias

-- put_aliases --
-- Puts aliases as the log has them.
insert into roomserver.aliases (alias, room_id, creator, position)
select x.alias, x.room_id, x.creator, x.position
from json_populate_recordset(null::roomserver.aliases, %(rows)s::json) x
on conflict (alias) do update
set room_id = excluded.room_id, creator = excluded.creator, position = excluded.position

-- remove_directory --
-- Takes away rooms that are not published.
delete from roomserver.directory t
using json_populate_recordset(null::roomserver.directory, %(rows)s::json) x
where t.room_id = x.room_id

-- put_directory --
-- Puts published rooms as the log has them.
insert into roomserver.directory (room_id, position)
select x.room_id, x.position
from json_populate_recordset(null::roomserver.directory, %(rows)s::json) x
on conflict (room_id) do update set position = excluded.position

-- remove_redactions --
-- Takes away redactions that never took effect.
delete from roomserver.redactions t
using json_populate_recordset(null::roomserver.redactions, %(rows)s::json) x
where t.target = x.target

-- put_redactions --
-- Puts redactions as the log has them.
insert into roomserver.redactions (target, redaction, entry, room, position)
select x.target, x.redaction, x.entry, x.room, x.position
from json_populate_recordset(null::roomserver.redactions, %(rows)s::json) x
on conflict (target) do update
set redaction = excluded.redaction, entry = excluded.entry, room = excluded.room, position = excluded.position

-- remove_relations --
-- Takes away relations that no event has.
delete from roomserver.relations t
using json_populate_recordset(null::roomserver.relations, %(rows)s::json) x
where t.target = x.target and t.rel_type = x.rel_type and t.timeline = x.timeline and t.event_id = x.event_id

-- put_relations --
-- Puts relations as the log has them.
insert into roomserver.relations (target, rel_type, timeline, entry, room, event_id, sender)
select x.target, x.rel_type, x.timeline, x.entry, x.room, x.event_id, x.sender
from json_populate_recordset(null::roomserver.relations, %(rows)s::json) x
on conflict (target, rel_type, timeline, event_id) do update
set entry = excluded.entry, room = excluded.room, sender = excluded.sender

-- remove_early_redactions --
-- Takes away redactions that did not come before what they redact.
delete from roomserver.early_redactions t
using json_populate_recordset(null::roomserver.early_redactions, %(rows)s::json) x
where t.target = x.target and t.redaction = x.redaction

-- put_early_redactions --
-- Puts redactions that came before what they redact as the log has them.
insert into roomserver.early_redactions (target, redaction, entry, room, position)
select x.target, x.redaction, x.entry, x.room, x.position
from json_populate_recordset(null::roomserver.early_redactions, %(rows)s::json) x
on conflict (target, redaction) do update set entry = excluded.entry, room = excluded.room, position = excluded.position

-- remove_reports --
-- Takes away reports that nobody made.
delete from roomserver.reports t
using json_populate_recordset(null::roomserver.reports, %(rows)s::json) x
where t.entry = x.entry

-- put_reports --
-- Puts reports as the log has them.
insert into roomserver.reports (entry, reporter, room_id, event_id, user_id, reason, shard, position)
select x.entry, x.reporter, x.room_id, x.event_id, x.user_id, x.reason, x.shard, x.position
from json_populate_recordset(null::roomserver.reports, %(rows)s::json) x
on conflict (entry) do update
set reporter = excluded.reporter, room_id = excluded.room_id, event_id = excluded.event_id, user_id = excluded.user_id,
    reason = excluded.reason, shard = excluded.shard, position = excluded.position

-- remove_threads --
-- Takes away threads that nothing says.
delete from roomserver.threads t
using json_populate_recordset(null::roomserver.threads, %(rows)s::json) x
where t.room = x.room and t.root = x.root

-- put_threads --
-- Puts threads as they should be.
insert into roomserver.threads (room, root, begun, entry, event_id)
select x.room, x.root, x.begun, x.entry, x.event_id
from json_populate_recordset(null::roomserver.threads, %(rows)s::json) x
on conflict (room, root) do update
set begun = excluded.begun, entry = excluded.entry, event_id = excluded.event_id

-- remove_activity_users --
-- Takes away counts of users that nothing says.
delete from activity.users t
using json_populate_recordset(null::activity.users, %(rows)s::json) x
where t.sender = x.sender and t.day = x.day and t.room = x.room

-- put_activity_users --
-- Puts counts of users as they should be.
insert into activity.users (sender, day, room, messages, edits, reactions, changes)
select x.sender, x.day, x.room, x.messages, x.edits, x.reactions, x.changes
from json_populate_recordset(null::activity.users, %(rows)s::json) x
on conflict (sender, day, room) do update
set messages = excluded.messages, edits = excluded.edits, reactions = excluded.reactions, changes = excluded.changes

-- remove_activity_rooms --
-- Takes away counts of rooms that nothing says.
delete from activity.rooms t
using json_populate_recordset(null::activity.rooms, %(rows)s::json) x
where t.room = x.room and t.day = x.day

-- put_activity_rooms --
-- Puts counts of rooms as they should be.
insert into activity.rooms (room, day, messages, edits, reactions, changes, senders)
select x.room, x.day, x.messages, x.edits, x.reactions, x.changes, x.senders
from json_populate_recordset(null::activity.rooms, %(rows)s::json) x
on conflict (room, day) do update
set messages = excluded.messages, edits = excluded.edits, reactions = excluded.reactions, changes = excluded.changes,
    senders = excluded.senders

-- remove_activity_days --
-- Takes away counts of days that nothing says.
delete from activity.days t
using json_populate_recordset(null::activity.days, %(rows)s::json) x
where t.day = x.day

-- put_activity_days --
-- Puts counts of days as they should be.
insert into activity.days (day, messages, edits, reactions, changes, senders, rooms)
select x.day, x.messages, x.edits, x.reactions, x.changes, x.senders, x.rooms
from json_populate_recordset(null::activity.days, %(rows)s::json) x
on conflict (day) do update
set messages = excluded.messages, edits = excluded.edits, reactions = excluded.reactions, changes = excluded.changes,
    senders = excluded.senders, rooms = excluded.rooms

-- remove_user_keys --
-- Takes away keys of users that the log does not know.
delete from roomserver.user_keys t
using json_populate_recordset(null::roomserver.user_keys, %(rows)s::json) x
where t.user_id = x.user_id and t.usage = x.usage and t.key_id = x.key_id

-- put_user_keys --
-- Puts keys of users as the log has it.
insert into roomserver.user_keys (user_id, usage, key_id, key, shard, position)
select x.user_id, x.usage, x.key_id, x.key, x.shard, x.position
from json_populate_recordset(null::roomserver.user_keys, %(rows)s::json) x
on conflict (user_id, usage, key_id) do update
set key = excluded.key, shard = excluded.shard, position = excluded.position

-- remove_device_lists --
-- Takes away when device lists changed that the log does not know.
delete from roomserver.device_lists t
using json_populate_recordset(null::roomserver.device_lists, %(rows)s::json) x
where t.user_id = x.user_id

-- put_device_lists --
-- Puts when device lists changed as the log has it.
insert into roomserver.device_lists (user_id, shard, position)
select x.user_id, x.shard, x.position
from json_populate_recordset(null::roomserver.device_lists, %(rows)s::json) x
on conflict (user_id) do update
set shard = excluded.shard, position = excluded.position

-- remove_to_device --
-- Takes away messages to devices that the log does not know.
delete from roomserver.to_device t
using json_populate_recordset(null::roomserver.to_device, %(rows)s::json) x
where t.user_id = x.user_id and t.device_id = x.device_id and t.shard = x.shard and t.position = x.position

-- put_to_device --
-- Puts messages to devices as the log has it.
insert into roomserver.to_device (user_id, device_id, shard, position, sender, type, content)
select x.user_id, x.device_id, x.shard, x.position, x.sender, x.type, x.content
from json_populate_recordset(null::roomserver.to_device, %(rows)s::json) x
on conflict (user_id, device_id, shard, position) do update
set sender = excluded.sender, type = excluded.type, content = excluded.content
