-- content --
-- One piece of account data, of the user or of the user in a room (empty: of the user).
select content from roomserver.account_data
where user_id = %(user_id)s and room_id = %(room_id)s and type = %(type)s
