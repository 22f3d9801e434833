-- profiles --
-- What is publicly known of users: whether they are in a room, local profiles, and for others the last join.
select u.user_id, j.json, n.value, a.value
from unnest(%(users)s::text[]) as u (user_id)
left join lateral (
    select e.json
    from roomserver.memberships m
    join eventlog.events e on e.id = m.entry and e.kind = 's'
    where m.user_id = u.user_id and m.membership = 'j'
    order by m.entry desc
    limit 1
) j on true
left join roomserver.profiles n on n.user_id = u.user_id and n.field = 'displayname'
left join roomserver.profiles a on a.user_id = u.user_id and a.field = 'avatar_url'

-- put --
-- Takes users in, as they are now.
insert into userdirectory.users as u (user_id, display_name, avatar_url, words)
select x.user_id, x.display_name, x.avatar_url, array_to_tsvector(array(select jsonb_array_elements_text(x.words)))
from jsonb_to_recordset(%(users)s::jsonb) as x (user_id text, display_name text, avatar_url text, words jsonb)
on conflict (user_id) do update
set display_name = excluded.display_name, avatar_url = excluded.avatar_url, words = excluded.words
where u.display_name is distinct from excluded.display_name or u.avatar_url is distinct from excluded.avatar_url

-- remove --
-- Takes users out who are in no room any more.
delete from userdirectory.users where user_id = any(%(users)s)

-- judge_rooms --
-- Notes which of some rooms anybody may join or read now, and which not.
with open as materialized (
    select r.room, bool_or(coalesce(
        (s.type = 'm.room.join_rules' and history.safe_json(e.json) #>> '{content,join_rule}' = 'public')
        or (s.type = 'm.room.history_visibility' and history.safe_json(e.json) #>> '{content,history_visibility}' = 'world_readable'),
        false)) as public
    from unnest(%(rooms)s::bigint[]) as r (room)
    left join roomserver.state s on s.room = r.room and s.line = 0 and s.valid_to = 9223372036854775807 and s.state_key = ''
        and s.type in ('m.room.join_rules', 'm.room.history_visibility')
    left join eventlog.events e on e.id = s.entry and e.kind = 's'
    group by r.room
),
closed as (
    delete from userdirectory.public_rooms p using open o where o.room = p.room and not o.public
)
insert into userdirectory.public_rooms (room)
select o.room from open o where o.public
on conflict do nothing

-- tidy --
-- Takes users out who are in no room, and rooms that are gone.
with gone as (
    delete from userdirectory.public_rooms p where not exists (select from roomserver.rooms r where r.nid = p.room)
)
delete from userdirectory.users u
where not exists (select from roomserver.memberships m where m.user_id = u.user_id and m.membership = 'j')

-- clear --
-- Takes all users and rooms out.
truncate userdirectory.users, userdirectory.public_rooms

-- find --
-- Users whom another one may find, by the beginnings of words: those with the very words first, then those with a full profile.
with matching as materialized (
    select u.user_id, u.display_name, u.avatar_url, u.words
    from userdirectory.users u
    where u.words @@ %(words)s::tsquery and u.user_id <> %(user_id)s
    order by u.user_id
    limit %(most)s
)
select u.user_id, u.display_name, u.avatar_url
from matching u
where (
        exists (
            select from roomserver.memberships m
            join userdirectory.public_rooms p on p.room = m.room
            where m.user_id = u.user_id and m.membership = 'j'
        )
        or exists (
            select from roomserver.memberships m
            join roomserver.memberships o on o.user_id = %(user_id)s and o.room = m.room and o.membership = 'j'
            where m.user_id = u.user_id and m.membership = 'j'
        )
    )
    and not exists (select from writer.accounts a where a.user_id = u.user_id and a.deactivated_at is not null)
order by u.words @@ %(exact)s::tsquery desc, (u.display_name is not null) desc, (u.avatar_url is not null) desc, u.user_id
limit %(limit)s
