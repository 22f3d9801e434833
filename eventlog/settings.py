"""The settings every component reads, as frozen values: one section class per section of walden.toml.

Invariant: a setting exists exactly once, as one line of a section class below; its type, default, sentence,
bounds and environment variables all come from that line. `eventlog.configuration` reads them.
"""

# ruff: noqa: RUF009 - `setting` only makes a dataclass field.

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Role = Literal["owner", "writer", "roomserver", "reader", "maintenance", "replication", "history"]
"""A login of the database; `owner` is the one that migrates and provisions the others."""

SERVER_NAME = re.compile(r"(?:[0-9A-Za-z.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
"""Grammar of a server name (specification v1.19, appendices, "Server name")."""

LOCALPART = re.compile(r"[0-9a-z._=/+-]{1,100}")
"""Grammar of the part of a user id before the colon (specification v1.19, appendices, "User Identifiers"), and not too long."""


class ConfigurationError(Exception):
    """A setting is unknown or has a value it cannot have; the message says which, where, and what would do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Listen:
    """An address and TCP port to listen on, written `address:port` (`[::1]:8008` for IPv6)."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Listen":
        """Read `address:port`; raises ValueError with a sentence."""
        address, separator, port = text.rpartition(":")
        if not separator or not port.isdecimal() or int(port) > 65535 or not address:
            raise ValueError("expected address:port, as in 127.0.0.1:8008 or [::1]:8008")
        return cls(address.removeprefix("[").removesuffix("]"), int(port))


def setting(
    default: Any,
    doc: str,
    *,
    env: str = "",
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    pattern: re.Pattern[str] | None = None,
    secret: bool = False,
) -> Any:
    """Declare one setting: its default (as it would be written in TOML), its sentence, and its bounds.

    `env` is a fixed environment variable beside the generic WALDEN_<SECTION>_<KEY>. `{data_dir}` in the default
    of a path stands for the data directory.
    """
    metadata = {
        "default": default,
        "doc": doc,
        "env": env,
        "choices": choices,
        "minimum": minimum,
        "pattern": pattern,
        "secret": secret,
    }
    return dataclasses.field(metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """Who this server is and where it keeps what it writes."""

    name: str = setting(
        "localhost",
        "The server's name, the part of user ids after the colon. It can never change.",
        pattern=SERVER_NAME,
    )
    public_base_url: str = setting(
        "", "The URL clients reach the server at, as well-known tells them. Empty: made from client.listen."
    )
    data_dir: Path = setting("data", "Everything a run writes: database, media, keys, logs.", env="WALDEN_DATA_DIR")
    signing_key: Path = setting("{data_dir}/signing.key", "File of the key that signs events and federation requests.")
    default_room_version: str = setting(
        "12", "Version of rooms made without one.", choices=tuple(str(n) for n in range(1, 13))
    )
    notices_localpart: str = setting(
        "_server",
        "The user that server notices come from, the part before the colon. Nobody can log in as it.",
        pattern=LOCALPART,
    )
    metrics_listen: Listen | None = setting("", "Address and port for Prometheus metrics. Empty: none.")


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """The listener for clients (client-server API).

    A certificate that was renewed is read by the processes that start after that: `kill -HUP` the process of `api` that
    `walden status` names (and that of `federation`, where it has one), and new ones take over while open requests end.
    `walden doctor` looks at the files before.
    """

    listen: Listen = setting("127.0.0.1:8008", "Address and port for clients.")
    tls_certificate: Path | None = setting("", "PEM certificate chain. Empty: plain HTTP, for a proxy in front.")
    tls_key: Path | None = setting("", "PEM key of the certificate.")
    processes: int = setting(1, "API processes that share the listener.", minimum=1)
    backlog: int = setting(2048, "Connections that may wait to be accepted.", minimum=1)
    max_body_bytes: int = setting(1_048_576, "Longest request body, media uploads aside.", minimum=65_536)
    trusted_proxies: tuple[str, ...] = setting((), "Addresses whose X-Forwarded-For is believed.")


@dataclasses.dataclass(frozen=True, slots=True)
class Federation:
    """The listener for other servers, and how this one calls them."""

    listen: Listen | None = setting("127.0.0.1:8448", "Address and port for other servers. Empty: none.")
    tls_certificate: Path | None = setting("", "PEM certificate chain. Empty: plain HTTP, for a proxy in front.")
    tls_key: Path | None = setting("", "PEM key of the certificate.")
    extra_ca_file: Path | None = setting(
        "", "PEM certificates trusted beside the system's when calling other servers. Of no effect yet: none is called."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Database:
    """Where the database is. Without a DSN, an embedded PostgreSQL 18 in the data directory.

    Pooled queries may go through PgBouncer, in transaction pooling mode: `dsn` is the way through it, `direct_dsn` the way
    past it, with the same database and login; set-up, replication and LISTEN always go past. The logins that `walden init`
    makes carry their session settings (`statement_timeout` and others) themselves, for PgBouncer refuses them from clients;
    give them to logins of your own with the `alter role … set …` that `walden doctor` prints. PgBouncer has to know the
    logins, best by `auth_query`; its `default_pool_size` should be at least four for every API process. Before PgBouncer
    1.21, or without its `max_prepared_statements`, set `prepare = false`.
    """

    dsn: str = setting("", "libpq DSN or URL for set-up and pooled queries. Empty: the embedded database.", secret=True)
    direct_dsn: str = setting("", "DSN past any pooler, for replication and LISTEN. Empty: database.dsn.", secret=True)
    writer_dsn: str = setting("", "DSN of the writers. Empty: database.dsn with the role made by init.", secret=True)
    roomserver_dsn: str = setting("", "DSN of the room server. Empty: likewise.", secret=True)
    reader_dsn: str = setting("", "DSN of the readers. Empty: likewise.", secret=True)
    maintenance_dsn: str = setting("", "DSN of the maintenance task. Empty: likewise.", secret=True)
    replication_dsn: str = setting("", "Direct DSN of the replication streams. Empty: likewise.", secret=True)
    history_dsn: str = setting("", "DSN of people who query `history`. Empty: likewise.", secret=True)
    standby_dsn: str = setting(
        "",
        "DSN of a hot standby that this machine's /sync decodes from and queries (PostgreSQL 16 and newer). Empty: the primary.",
        secret=True,
    )
    pool_min: int = setting(2, "Connections a process keeps open per role.", minimum=1)
    pool_max: int = setting(8, "Connections a process opens at most per role.", minimum=1)
    prepare: bool = setting(True, "Prepare pooled statements. Off: for a pooler that cannot keep them apart.")
    connect_timeout: int = setting(10, "Seconds to wait for a connection.", minimum=1)
    patroni: tuple[str, ...] = setting(
        (),
        "Addresses of Patroni's REST interface (http://host:8008), for the doctor to ask whether it spares the slots.",
    )
    embedded_shared_buffers: str = setting("128MB", "shared_buffers of the embedded database.")
    embedded_max_connections: int = setting(120, "max_connections of the embedded database.", minimum=20)
    embedded_max_slot_wal: str = setting("4GB", "max_slot_wal_keep_size of the embedded database.")


@dataclasses.dataclass(frozen=True, slots=True)
class Log:
    """The event log."""

    shards: int = setting(1, "Shards of the log, 256 at most; fixed at init, nothing raises it afterwards.", minimum=1)
    verdict_timeout: float = setting(20.0, "Seconds a request waits for the room server's verdict.", minimum=0.1)


@dataclasses.dataclass(frozen=True, slots=True)
class Retention:
    """What leaves the log, and when. Days are counted from the arrival of an event at this server; 0 days mean: never.

    Messages leave by partitions, of a month each: those whose every message is older than `message_days` are dropped, which
    frees disk. State events never leave. Before a partition goes, what must outlive it is kept (docs/retention.md).
    """

    message_days: float = setting(0.0, "Days that messages stay, in rooms that do not say otherwise.", minimum=0)
    room_policies: bool = setting(True, "Follow what rooms say in m.room.retention (MSC1763, max_lifetime).")
    room_minimum_days: float = setting(1.0, "The shortest lifetime that a room can ask for.", minimum=0)
    room_maximum_days: float = setting(0.0, "The longest lifetime that a room can ask for. 0: any.", minimum=0)
    user_entry_days: float = setting(
        30.0, "Days that receipts, account data and the like stay in the log; their last values stay.", minimum=0
    )
    redacted_days: float = setting(7.0, "Days after which the content of a redacted event is scrubbed.", minimum=0)


@dataclasses.dataclass(frozen=True, slots=True)
class Registration:
    """Who may make an account."""

    mode: str = setting(
        "off",
        "Who may register: anyone, holders of a token, holders of the shared secret, nobody.",
        env="WALDEN_REGISTRATION",
        choices=("open", "token", "shared-secret", "off"),
    )
    shared_secret: str = setting("", "The secret of mode shared-secret.", secret=True)
    email: str = setting(
        "optional",
        "Whether registering takes an e-mail address; without email.smtp_host it never does.",
        choices=("off", "optional", "required"),
    )
    terms_url: str = setting("", "Page with the terms that whoever registers agrees to. Empty: none.")
    terms_name: str = setting("Terms of service", "Title of these terms.")
    terms_version: str = setting("1", "Version of these terms.")
    guests: bool = setting(False, "Whether anybody may have a guest account, to look at rooms that let guests in.")


@dataclasses.dataclass(frozen=True, slots=True)
class Sessions:
    """How long those who logged in stay so."""

    access_token_seconds: float = setting(
        3600.0, "Life of an access token of a client that can refresh it.", minimum=10
    )
    unrefreshable_seconds: float = setting(
        0.0,
        "Life of other access tokens; afterwards the client logs in again, keeping its device. 0: no end.",
        minimum=0,
    )
    login_tokens: bool = setting(True, "Whether a logged-in client may let another one in with a token.")
    login_token_seconds: float = setting(120.0, "Life of such a token.", minimum=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Email:
    """The mail server that messages to users go through. Without one, nothing asks for an e-mail address."""

    smtp_host: str = setting("", "Host name or address of the SMTP server. Empty: no e-mail.")
    smtp_port: int = setting(587, "Its port.", minimum=1)
    smtp_security: str = setting(
        "starttls",
        "How the connection is encrypted: by STARTTLS, from the start, or not at all.",
        choices=("starttls", "tls", "none"),
    )
    smtp_ca_file: Path | None = setting("", "PEM certificates trusted in the place of the system's.")
    smtp_user: str = setting("", "Login at the SMTP server. Empty: none.")
    smtp_password: str = setting("", "Password of this login.", secret=True)
    from_address: str = setting("", "Sender of messages. Empty: noreply@ and the server's name.")
    timeout: float = setting(20.0, "Seconds that sending a message may take.", minimum=1)
    reveal_addresses: bool = setting(
        False, "Say whether an address belongs to an account. Off: only the message to the address says it."
    )
    next_link_hosts: tuple[str, ...] = setting(
        (), "Hosts that a browser may be sent on to after a validation, beside that of the base URL."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Identity servers, which know users by their e-mail addresses. Without one, nobody is invited by an address."""

    trusted_servers: tuple[str, ...] = setting(
        (), "Names (host or host:port) of identity servers that users may invite by way of."
    )
    allowed_networks: tuple[str, ...] = setting(
        (),
        "Networks (CIDR) of identity servers that are not reached by a public address; plain HTTP is spoken to these alone.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Voip:
    """The TURN server of calls. Without one, clients are told of none."""

    turn_uris: tuple[str, ...] = setting((), "URIs of the TURN server, as in turn:turn.example.org?transport=udp.")
    turn_shared_secret: str = setting("", "Secret shared with it, of which users get credentials.", secret=True)
    turn_username: str = setting("", "Name all users share, where there is no shared secret.")
    turn_password: str = setting("", "Password of this name.", secret=True)
    turn_ttl_seconds: int = setting(86_400, "How long credentials are good for.", minimum=60)


@dataclasses.dataclass(frozen=True, slots=True)
class Support:
    """Whom people may turn to, as /.well-known/matrix/support says."""

    page: str = setting("", "URL of a page with help.")
    admin_email: str = setting("", "E-mail address of the administrators.")
    admin_user: str = setting("", "User id of an administrator.")
    security_email: str = setting("", "E-mail address for reports of weaknesses.")
    security_user: str = setting("", "User id for such reports.")


@dataclasses.dataclass(frozen=True, slots=True)
class RateLimits:
    """How often one caller may do what. Rates are requests per second, bursts are how many may come at once."""

    enabled: bool = setting(True, "Whether rates are limited at all.", env="WALDEN_RATE_LIMITS")
    message_per_second: float = setting(5.0, "Events sent, per user.", minimum=0.001)
    message_burst: int = setting(50, "Burst of events sent.", minimum=1)
    room_per_second: float = setting(0.2, "Rooms made, per user.", minimum=0.001)
    room_burst: int = setting(10, "Burst of rooms made.", minimum=1)
    join_per_second: float = setting(0.5, "Joins, per user.", minimum=0.001)
    join_burst: int = setting(20, "Burst of joins.", minimum=1)
    invite_per_second: float = setting(0.5, "Invitations, per user.", minimum=0.001)
    invite_burst: int = setting(20, "Burst of invitations.", minimum=1)
    login_per_second: float = setting(0.1, "Logins, per address and per account.", minimum=0.001)
    login_burst: int = setting(5, "Burst of logins.", minimum=1)
    registration_per_second: float = setting(0.05, "Registrations, per address.", minimum=0.001)
    registration_burst: int = setting(3, "Burst of registrations.", minimum=1)
    email_per_second: float = setting(
        0.02, "Messages by e-mail, per address of the client and of the message.", minimum=0.001
    )
    email_burst: int = setting(5, "Burst of messages by e-mail.", minimum=1)
    upload_per_second: float = setting(1.0, "Uploads, per user.", minimum=0.001)
    upload_burst: int = setting(50, "Burst of uploads.", minimum=1)
    preview_per_second: float = setting(0.5, "Pages fetched for a preview, per user.", minimum=0.001)
    preview_burst: int = setting(20, "Burst of pages.", minimum=1)
    request_per_second: float = setting(
        50.0, "Requests of all kinds, per user, or per address without one.", minimum=0.001
    )
    request_burst: int = setting(500, "Burst of requests.", minimum=1)


PROJECTIONS = ("search", "userdirectory", "notifications")
"""What readers keep in tables of their own."""

LANGUAGES = (
    "simple", "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "finnish", "french", "german", "greek",
    "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian", "portuguese", "romanian",
    "russian", "serbian", "spanish", "swedish", "tamil", "turkish", "yiddish",
)  # fmt: skip
"""PostgreSQL's own text search configurations, as 15 and newer have them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Presence:
    """Who is online."""

    enabled: bool = setting(True, "Whether users see of each other who is online.", env="WALDEN_PRESENCE")


@dataclasses.dataclass(frozen=True, slots=True)
class Push:
    """Push notifications, sent to the gateways that users' applications name."""

    allowed_networks: tuple[str, ...] = setting(
        (),
        "Networks (CIDR) of push gateways that are not reached by a public address; plain HTTP is allowed to these alone.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Readers:
    """The processes that keep what readers make of the log: search, user directory, notifications."""

    apart: tuple[str, ...] = setting(
        (), "Projections with a process of their own; the others share one.", choices=PROJECTIONS
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """Full-text search."""

    language: str = setting(
        "simple",
        "Whose word forms are found as one; simple finds words as they are written. After a change: walden rebuild search.",
        choices=LANGUAGES,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class AppServices:
    """Application services (bridges and bots)."""

    files: tuple[Path, ...] = setting(
        (), "Registration files of application services (YAML). Of no effect yet: this version has none."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Media:
    """Uploaded files, their thumbnails, and previews of URLs.

    By default they are in the database, so that one backup holds everything. In a directory they are files of their own, which
    all machines with API processes and maintenance have to share, and which are backed up beside the database; thumbnails stay in
    the database. A change of `store` counts for what is uploaded from then on: both places are always read.
    """

    store: str = setting("database", "Where uploads are put.", choices=("database", "directory"))
    directory: Path = setting("{data_dir}/media", "Folder of the files, where store is directory.")
    max_upload_bytes: int = setting(52_428_800, "Longest upload.", minimum=1)
    upload_bytes_per_second: int = setting(
        25_165_824,
        "What all uploads together write a second, so that messages need not wait for them; each of client.processes has its"
        " part of it. 0: whatever the disk takes.",
        minimum=0,
    )
    user_max_bytes: int = setting(10_737_418_240, "What one user may have uploaded in all. 0: any amount.", minimum=0)
    user_max_files: int = setting(100_000, "Files that one user may have uploaded. 0: any number.", minimum=0)
    pending_uploads: int = setting(50, "URIs that a user may have asked for and not uploaded to yet.", minimum=1)
    pending_hours: float = setting(24.0, "Hours that such a URI waits for its content.", minimum=0.001)
    unauthenticated: bool = setting(
        False,
        "Whether anybody may download, by the paths of old. What is uploaded meanwhile stays open to them.",
    )
    unused_days: float = setting(0.0, "Days after which what nobody downloaded goes. 0: never.", minimum=0)
    keep_files_days: float = setting(
        30.0,
        "Days that a file stays in the directory once it is gone from the database: as long as its backups.",
        minimum=0,
    )
    max_image_bytes: int = setting(33_554_432, "Longest image that thumbnails are made of.", minimum=1)
    max_image_pixels: int = setting(50_000_000, "Pixels of the largest image that thumbnails are made of.", minimum=1)
    decoder_memory_bytes: int = setting(
        1_073_741_824, "Address space of a process that decodes an image or reads a page.", minimum=1_048_576
    )
    decoder_seconds: float = setting(20.0, "How long it may take.", minimum=0.1)
    url_previews: bool = setting(True, "Whether users are told what is behind a URL.")
    preview_allowed_networks: tuple[str, ...] = setting(
        (), "Networks (CIDR) of pages that are not reached by a public address and may be previewed nevertheless."
    )
    preview_days: float = setting(3.0, "Days that previews are kept, with their pictures.", minimum=0.01)


@dataclasses.dataclass(frozen=True, slots=True)
class Logging:
    """What the processes print."""

    level: str = setting("info", "Least severe line that is printed.", choices=("debug", "info", "warning", "error"))
    format: str = setting("console", "One line for people, or one JSON object, per entry.", choices=("console", "json"))


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All sections, plus where they came from. `path` is walden.toml, which need not exist."""

    server: Server
    client: Client
    federation: Federation
    database: Database
    log: Log
    retention: Retention
    registration: Registration
    sessions: Sessions
    email: Email
    identity: Identity
    voip: Voip
    support: Support
    rate_limits: RateLimits
    presence: Presence
    push: Push
    readers: Readers
    search: Search
    appservices: AppServices
    media: Media
    logging: Logging
    path: Path
    warnings: tuple[str, ...] = ()

    @property
    def base_url(self) -> str:
        """The public base URL without a trailing slash; from client.listen when none is configured."""
        if self.server.public_base_url:
            return self.server.public_base_url.rstrip("/")
        return self.local_url

    @property
    def local_url(self) -> str:
        """URL of the client listener as seen from this machine."""
        scheme = "https" if self.client.tls_certificate else "http"
        wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        listen = self.client.listen
        return f"{scheme}://{Listen(wildcards.get(listen.address, listen.address), listen.port)}"

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded one."""
        return not self.database.dsn

    @property
    def pooler(self) -> bool:
        """Whether pooled queries may go through a pooler: there is another way past it."""
        return bool(self.database.direct_dsn)

    def dsn(self, role: Role = "owner", *, direct: bool = False) -> str:
        """Connection string of one role; `direct` (always so for replication) goes past a pooler.

        Reads the embedded database's DSN and the logins that `walden init` made from the data directory, each time:
        both may appear after the settings were read. Raises ConfigurationError when there is no database yet.
        """
        direct = direct or role == "replication"
        base = (direct and self.database.direct_dsn) or self.database.dsn or self._embedded_dsn()
        own = "" if role == "owner" else str(getattr(self.database, f"{role}_dsn"))
        if own and not (direct and self.database.direct_dsn and role != "replication"):
            return own
        login = _login(own) if own else self._logins().get(role)
        return make_conninfo(base, **login) if login else base

    def standby_dsn(self, role: Role) -> str:
        """Connection string of one role for the hot standby: the standby's address, the primary's database and login."""
        primary, standby = conninfo_to_dict(self.dsn(role, direct=True)), conninfo_to_dict(self.database.standby_dsn)
        kept = {key: primary[key] for key in ("user", "password", "dbname") if primary.get(key) is not None}
        return make_conninfo(
            self.database.standby_dsn, **{**kept, **({"dbname": standby["dbname"]} if "dbname" in standby else {})}
        )

    def _embedded_dsn(self) -> str:
        file = self.server.data_dir / "embedded.dsn"
        try:
            return file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise ConfigurationError(
                f"there is no database yet: database.dsn is empty and {file} does not exist; run `walden init` first"
            ) from None

    def _logins(self) -> dict[str, dict[str, str]]:
        try:
            text = (self.server.data_dir / "logins.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        logins: dict[str, dict[str, str]] = json.loads(text)
        return logins


def _login(dsn: str) -> dict[str, Any]:
    parts = conninfo_to_dict(dsn)
    return {key: parts[key] for key in ("user", "password") if parts.get(key) is not None}
