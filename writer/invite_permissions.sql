-- permissions --
-- What users say of who may invite them.
select user_id, type, content
from roomserver.account_data
where user_id = any (%(user_ids)s) and room_id = '' and type = any (%(types)s)
