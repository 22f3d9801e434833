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
