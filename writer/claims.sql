-- claim --
-- Waits until nobody else holds the name; it is given back at the end of the transaction.
select pg_advisory_xact_lock(%(space)s, %(name)s)
