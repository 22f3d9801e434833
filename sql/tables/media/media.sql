-- Uploaded files and what is made of them: bytes, which are no entries of the log.
create table media.blobs (
    blob bigint generated always as identity primary key,
    sha256 bytea unique,
    bytes bigint not null default 0,
    file text collate "C" unique,
    begun_at timestamptz not null default now(),
    idle_since timestamptz default now()
);
create index blobs_idle on media.blobs (idle_since) where idle_since is not null;
comment on table media.blobs is 'Contents, each once however often it was uploaded.';
comment on column media.blobs.blob is 'Number of the content.';
comment on column media.blobs.sha256 is 'Hash of the content; null while it is written, and once it is to go.';
comment on column media.blobs.bytes is 'Length.';
comment on column media.blobs.file is 'Name of its file below media.directory; null: it stands in media.chunks.';
comment on column media.blobs.begun_at is 'When its first upload began.';
comment on column media.blobs.idle_since is 'Since when no upload refers to it; null: one does.';

create table media.chunks (
    blob bigint not null references media.blobs (blob),
    number integer not null,
    data bytea not null,
    primary key (blob, number)
);
-- What people send is compressed already, and a part of a chunk that is not compressed is read without the rest.
alter table media.chunks alter column data set storage external;
comment on table media.chunks is 'Contents in pieces of 256 KiB, the last one shorter.';
comment on column media.chunks.blob is 'Whose piece.';
comment on column media.chunks.number is 'Which piece, from 0 on.';
comment on column media.chunks.data is 'The bytes.';

create table media.uploads (
    media_id text collate "C" primary key,
    user_id text collate "C",
    blob bigint references media.blobs (blob),
    content_type text collate "C",
    file_name text,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    legacy boolean not null default false,
    used_on date not null default current_date,
    quarantined_at timestamptz,
    quarantined_by text
);
create index uploads_user on media.uploads (user_id, created_at);
create index uploads_blob on media.uploads (blob);
create index uploads_unused on media.uploads (used_on);
create index uploads_pending on media.uploads (expires_at) where blob is null;
comment on table media.uploads is 'What mxc:// URIs of this server stand for.';
comment on column media.uploads.media_id is 'The URI''s last part.';
comment on column media.uploads.user_id is 'Who uploaded it; null: the server did, for a preview.';
comment on column media.uploads.blob is 'The content; null while it is awaited.';
comment on column media.uploads.content_type is 'Content-Type, as the uploader said it.';
comment on column media.uploads.file_name is 'Name of the file, as the uploader said it; null for none.';
comment on column media.uploads.created_at is 'When the URI was given out.';
comment on column media.uploads.expires_at is 'Until when the content is awaited; null once it is there.';
comment on column media.uploads.legacy is 'Whether it was uploaded while anybody might download, so that anybody still may.';
comment on column media.uploads.used_on is 'Last day on which somebody downloaded it, or the day of the upload.';
comment on column media.uploads.quarantined_at is 'Since when nobody gets it; null: everybody does.';
comment on column media.uploads.quarantined_by is 'Who said so.';

create table media.usage (
    user_id text collate "C" primary key,
    files bigint not null,
    bytes bigint not null
) with (fillfactor = 80);
comment on table media.usage is 'What each user has uploaded, for the quotas: the sum of media.uploads.';
comment on column media.usage.user_id is 'The user.';
comment on column media.usage.files is 'Uploads.';
comment on column media.usage.bytes is 'Their lengths, of equal contents each.';

create table media.thumbnails (
    blob bigint not null references media.blobs (blob),
    width integer not null,
    height integer not null,
    method "char" not null check (method in ('c', 's')),
    animated boolean not null,
    content_type text collate "C",
    data bytea,
    failure text collate "C",
    made_at timestamptz not null default now(),
    primary key (blob, width, height, method, animated)
);
alter table media.thumbnails alter column data set storage external;
comment on table media.thumbnails is 'Thumbnails, made when they are asked for. Owner: the reader media.';
comment on column media.thumbnails.blob is 'Of which content.';
comment on column media.thumbnails.width is 'Width that it was made for.';
comment on column media.thumbnails.height is 'Height that it was made for.';
comment on column media.thumbnails.method is 'c: crop, s: scale.';
comment on column media.thumbnails.animated is 'Whether it may be animated.';
comment on column media.thumbnails.content_type is 'Its Content-Type; null: there is a failure.';
comment on column media.thumbnails.data is 'Its bytes, less than 1 MB; null: the content itself is no larger, and is what to send.';
comment on column media.thumbnails.failure is 'Why none can be made: undecodable or too_large; null: one was.';
comment on column media.thumbnails.made_at is 'When it was made.';

create table media.previews (
    url_hash bytea primary key,
    body text not null,
    media_id text collate "C",
    fetched_at timestamptz not null default now()
);
create index previews_age on media.previews (fetched_at);
create index previews_image on media.previews (media_id);
comment on table media.previews is 'What pages said of themselves when a user wanted to know.';
comment on column media.previews.url_hash is 'sha256 of the URL.';
comment on column media.previews.body is 'The answer, a JSON object as text.';
comment on column media.previews.media_id is 'Upload that its picture is; null: it has none.';
comment on column media.previews.fetched_at is 'When the page was fetched.';
