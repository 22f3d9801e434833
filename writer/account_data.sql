-- content --
-- One piece of account data, of the user or of the user in a room (empty: of the user).
select content from roomserver.account_data
where user_id = %(user_id)s and room_id = %(room_id)s and type = %(type)s

-- has_room_for --
-- Whether a type of account data is there already, or fewer than the most are.
select exists (
           select from roomserver.account_data
           where user_id = %(user_id)s and room_id = %(room_id)s and type = %(type)s)
       or (select count(*) < %(most)s
           from (select from roomserver.account_data where user_id = %(user_id)s and room_id = %(room_id)s limit %(most)s) few)
