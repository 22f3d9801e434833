-- put_filter --
-- Keeps a filter, unless the user has too many; one there is already stays.
insert into writer.filters (user_id, filter_id, definition)
select %(user_id)s, %(filter_id)s, %(definition)s
where (select count(*) from writer.filters f where f.user_id = %(user_id)s) < %(most)s
on conflict (user_id, filter_id) do nothing

-- filter --
-- One filter of a user.
select definition from writer.filters where user_id = %(user_id)s and filter_id = %(filter_id)s
