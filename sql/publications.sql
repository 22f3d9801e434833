-- Readers follow both logs, the room server the input alone. Inserts only: nothing else happens to them.
do $$
begin
    if not exists (select from pg_publication where pubname = 'walden_outputs') then
        create publication walden_outputs for table
            eventlog.events (id, kind, event_id, room_id, type, state_key, sender, device_id, txn_id, json),
            eventlog.outputs (shard, position, kind, entry, room, verdict, timeline, line, annotation)
        with (publish = 'insert', publish_via_partition_root = true);
    end if;
end
$$;
