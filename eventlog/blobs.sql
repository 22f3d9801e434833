-- begin --
-- A content that will be written, piece by piece.
insert into media.blobs (file) values (%(file)s) returning blob

-- write --
-- A piece of a content. Who stores the content waits for the disk, and with that for all its pieces; nobody waits for one.
with soon as materialized (select set_config('synchronous_commit', 'off', true))
insert into media.chunks (blob, number, data)
select %(blob)s, %(number)s, %(data)s from soon

-- read --
-- A part of a piece.
select substring(data from %(first)s::integer for %(bytes)s::integer) from media.chunks
where blob = %(blob)s and number = %(number)s
