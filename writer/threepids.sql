-- of_user --
-- The third-party identifiers of a user.
select medium, address, (extract(epoch from validated_at) * 1000)::bigint, (extract(epoch from added_at) * 1000)::bigint
from writer.threepids
where user_id = %(user_id)s
order by added_at, medium, address
limit %(most)s

-- add --
-- Adds an identifier to an account, unless another has it; one that it has already is validated anew.
insert into writer.threepids as t (medium, address, user_id, validated_at)
values (%(medium)s, %(address)s, %(user_id)s, to_timestamp(%(validated_at)s))
on conflict (medium, address) do update set validated_at = excluded.validated_at
where t.user_id = excluded.user_id
returning t.user_id

-- count --
-- How many identifiers a user has.
select count(*) from writer.threepids where user_id = %(user_id)s

-- delete --
-- Takes an identifier from an account.
delete from writer.threepids where medium = %(medium)s and address = %(address)s and user_id = %(user_id)s
