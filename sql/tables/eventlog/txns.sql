create table eventlog.txns (
    key bytea primary key,
    entry bigint not null
);
comment on table eventlog.txns is 'Claimed client transaction ids. Owner: append_v1; maintenance removes claims older than seven days.';
comment on column eventlog.txns.key is 'First 16 bytes of sha256 over user, device, method and path with the transaction id.';
comment on column eventlog.txns.entry is 'Entry that the transaction became; its id tells the time of the claim.';
