-- A room's state as of a moment. Never an empty answer where nothing is known: history.known_place fails then, and says so.
-- Inlined by the planner: a type and a state key that are asked for are looked up, and nothing else is.
create function history.state_at(of_room text, moment timestamptz)
returns table (type text, state_key text, sender text, since timestamptz, content jsonb, redacted boolean, event_id text)
language sql stable parallel restricted
begin atomic
    select s.type, s.state_key, s.sender, s.began_at, s.content, s.redacted, s.event_id
    from history.state_changes s
    where s.room = (select history.room_number(of_room))
      and s.place <= (select history.known_place(of_room, moment)) and s.until_place > (select history.known_place(of_room, moment));
end;
comment on function history.state_at(text, timestamptz) is 'The state of a room as it was at a moment, redactions applied: select type, state_key, content from history.state_at(''!room:server'', now() - interval ''7 days''). Fails with P0002 where the answer is unknown: before this server knew the room, while nobody of this server was in it, in the future. NUL in strings reads as U+10FFFF 0.';
