create table writer.threepids (
    medium text collate "C" not null,
    address text collate "C" not null,
    user_id text collate "C" not null references writer.accounts (user_id),
    validated_at timestamptz not null,
    added_at timestamptz not null default now(),
    primary key (medium, address)
);
create index threepids_user on writer.threepids (user_id);
comment on table writer.threepids is 'Third-party identifiers of accounts. At most 20 an account.';
comment on column writer.threepids.medium is 'email.';
comment on column writer.threepids.address is 'The address in its canonical form.';
comment on column writer.threepids.user_id is 'Whose.';
comment on column writer.threepids.validated_at is 'When its owner proved to have it.';
comment on column writer.threepids.added_at is 'When it was added to the account.';

create table writer.threepid_validations (
    sid text collate "C" primary key,
    purpose text collate "C" not null,
    medium text collate "C" not null,
    address text collate "C" not null,
    client_secret text collate "C" not null,
    token_hash bytea,
    send_attempt bigint not null,
    next_link text,
    sent_at timestamptz not null default now(),
    validated_at timestamptz,
    unique (purpose, medium, address, client_secret)
);
create index threepid_validations_sent on writer.threepid_validations (sent_at);
comment on table writer.threepid_validations is 'Third-party identifiers being validated; maintenance removes what is older than a day.';
comment on column writer.threepid_validations.sid is 'Random id the client names.';
comment on column writer.threepid_validations.purpose is 'register, password or add: what it was validated for.';
comment on column writer.threepid_validations.medium is 'email.';
comment on column writer.threepid_validations.address is 'The address in its canonical form.';
comment on column writer.threepid_validations.client_secret is 'What the client proves its session by.';
comment on column writer.threepid_validations.token_hash is 'sha256 of the token in the message; null: the message had none, and it can never be validated.';
comment on column writer.threepid_validations.send_attempt is 'The greatest attempt a message was sent for.';
comment on column writer.threepid_validations.next_link is 'Where the browser goes afterwards; null: nowhere.';
comment on column writer.threepid_validations.sent_at is 'When the last message was sent.';
comment on column writer.threepid_validations.validated_at is 'When the token came back; null: not yet.';
