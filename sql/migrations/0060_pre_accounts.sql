-- Accounts: locked and suspended ones, third-party identifiers, tokens, and rooms to be left after a deactivation.
alter table writer.accounts add column locked_at timestamptz, add column suspended_at timestamptz;
comment on column writer.accounts.locked_at is 'Since when it can do nothing but log out; null: it is not locked.';
comment on column writer.accounts.suspended_at is 'Since when it can read but not speak; null: it is not suspended.';
create index accounts_guests on writer.accounts (user_id) where guest;

alter table writer.devices add column last_seen_user_agent text;
comment on column writer.devices.last_seen_user_agent is 'User-Agent header of the last use, NUL-safe, at most 255 bytes.';

create table writer.departures (
    user_id text collate "C" primary key references writer.accounts (user_id),
    erase boolean not null default false,
    due_at timestamptz not null default now(),
    attempts integer not null default 0
);
comment on table writer.departures is 'Deactivated accounts whose rooms are still to be left. The row goes when that is done.';
comment on column writer.departures.user_id is 'Whose.';
comment on column writer.departures.erase is 'Whether the user asked to be erased.';
comment on column writer.departures.due_at is 'When a process may take it up; one that has done so moves it on by what it may need.';
comment on column writer.departures.attempts is 'How often it was taken up.';

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

create table writer.login_tokens (
    token_hash bytea primary key,
    user_id text collate "C" not null references writer.accounts (user_id),
    expires_at timestamptz not null
);
create index login_tokens_user on writer.login_tokens (user_id);
comment on table writer.login_tokens is 'Tokens that log one further device in, once.';
comment on column writer.login_tokens.token_hash is 'sha256 of the token.';
comment on column writer.login_tokens.user_id is 'Whose.';
comment on column writer.login_tokens.expires_at is 'When it ends.';

create table writer.openid_tokens (
    token_hash bytea primary key,
    user_id text collate "C" not null references writer.accounts (user_id),
    expires_at timestamptz not null
);
create index openid_tokens_user on writer.openid_tokens (user_id);
comment on table writer.openid_tokens is 'Tokens by which a third party learns who a user is.';
comment on column writer.openid_tokens.token_hash is 'sha256 of the token.';
comment on column writer.openid_tokens.user_id is 'Whose.';
comment on column writer.openid_tokens.expires_at is 'When it ends.';
