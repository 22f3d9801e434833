-- pushers --
-- The pushers of a user.
select app_id, pushkey, app_display_name, device_display_name, profile_tag, lang, data
from writer.pushers
where user_id = %(user_id)s
order by id

-- put --
-- Sets a pusher, unless its user has too many already.
insert into writer.pushers as p
    (user_id, device_id, app_id, pushkey, app_display_name, device_display_name, profile_tag, lang, data)
select %(user_id)s, %(device_id)s, %(app_id)s, %(pushkey)s, %(app_display_name)s, %(device_display_name)s, %(profile_tag)s, %(lang)s,
       %(data)s
where (select count(*) from writer.pushers o where o.user_id = %(user_id)s) < %(most)s
   or exists (select from writer.pushers o
              where o.user_id = %(user_id)s and o.app_id = %(app_id)s and o.pushkey = %(pushkey)s)
on conflict (user_id, app_id, pushkey) do update
set device_id = excluded.device_id, app_display_name = excluded.app_display_name,
    device_display_name = excluded.device_display_name, profile_tag = excluded.profile_tag, lang = excluded.lang,
    data = excluded.data, set_at = now()
returning p.id

-- drop_of_others --
-- Takes a push key away from whoever else has it.
delete from writer.pushers where app_id = %(app_id)s and pushkey = %(pushkey)s and user_id <> %(user_id)s

-- drop --
-- Removes a pusher.
delete from writer.pushers where user_id = %(user_id)s and app_id = %(app_id)s and pushkey = %(pushkey)s
