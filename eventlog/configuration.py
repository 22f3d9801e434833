"""Reading walden.toml and the environment into `Settings`.

Invariant: a value from the environment wins over one from the file, the file over the default, and a key nobody
knows is an error that names the nearest known one. The reference page is made from what `described` yields.
"""

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, get_args, get_origin

from psycopg.conninfo import conninfo_to_dict

from eventlog.settings import ConfigurationError, Listen, Role, Settings

__all__ = [
    "ConfigurationError",
    "Described",
    "Listen",
    "Role",
    "Settings",
    "configuration_path",
    "described",
    "from_text",
    "load_settings",
    "sections",
    "variable_of",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """One setting as the reference page shows it; `default` is what one would write in TOML."""

    section: str
    key: str
    type: Any
    default: Any
    doc: str
    variables: tuple[str, ...]
    choices: tuple[str, ...]
    minimum: float | None
    pattern: re.Pattern[str] | None
    secret: bool

    @property
    def name(self) -> str:
        """Dotted name, as in `server.name`."""
        return f"{self.section}.{self.key}"


def sections() -> dict[str, type[Any]]:
    """Every section's class by its name in walden.toml, in order."""
    hints = typing.get_type_hints(Settings)
    return {name: kind for name, kind in hints.items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)}


def described() -> Iterator[Described]:
    """Every setting there is, in the order of the reference page."""
    for section, kind in sections().items():
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            fixed = field.metadata["env"]
            generic = f"WALDEN_{section}_{field.name}".upper()
            yield Described(
                section=section,
                key=field.name,
                type=hints[field.name],
                default=field.metadata["default"],
                doc=field.metadata["doc"],
                variables=(fixed, generic) if fixed and fixed != generic else (generic,),
                choices=field.metadata["choices"],
                minimum=field.metadata["minimum"],
                pattern=field.metadata["pattern"],
                secret=field.metadata["secret"],
            )


def configuration_path(environ: Mapping[str, str]) -> Path:
    """Path of walden.toml: WALDEN_CONFIG, else in WALDEN_DATA_DIR, else in the current folder."""
    if environ.get("WALDEN_CONFIG"):
        return Path(environ["WALDEN_CONFIG"]).absolute()
    return Path(environ.get("WALDEN_DATA_DIR", ""), "walden.toml").absolute()


def load_settings(environ: Mapping[str, str], path: Path | None = None) -> Settings:
    """Read walden.toml (absent is the same as empty) and the environment.

    `path` overrides WALDEN_CONFIG. Relative paths in the file are relative to the file, in the environment to the
    current folder. Raises ConfigurationError.
    """
    path = path.absolute() if path else configuration_path(environ)
    table = _read(path)
    _refuse_unknown(table, path)
    values: dict[str, dict[str, Any]] = {name: {} for name in sections()}
    data_dir = path.parent / "data"
    for one in described():
        variable = variable_of(one, environ)
        if variable:
            source, base, raw = f"environment variable {variable}", Path.cwd(), from_text(one, environ[variable])
        elif one.key in table.get(one.section, {}):
            source, base, raw = f"{path}: {one.name}", path.parent, table[one.section][one.key]
        else:
            source, base, raw = f"default of {one.name}", path.parent, one.default
        try:
            values[one.section][one.key] = _value(one, raw, base, data_dir)
        except ValueError as error:
            raise ConfigurationError(f"{source}: {error}") from None
        if one.name == "server.data_dir":
            data_dir = values["server"]["data_dir"]
    built: dict[str, Any] = {name: kind(**values[name]) for name, kind in sections().items()}
    settings = Settings(**built, path=path, warnings=tuple(_stray_variables(environ)))
    _check(settings)
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def _refuse_unknown(table: Mapping[str, Any], path: Path) -> None:
    keys = {section: [f.name for f in dataclasses.fields(kind)] for section, kind in sections().items()}
    names = [f"{section}.{key}" for section, known in keys.items() for key in known]
    # A setting written outside its section is looked for by its key alone.
    bare = {name.partition(".")[2]: name for name in names} | {section: section for section in keys}
    for section, content in table.items():
        if section not in keys:
            kind = f"section [{section}]" if isinstance(content, dict) else f"setting {section}"
            near = difflib.get_close_matches(section, bare, 1, 0.0)
            raise ConfigurationError(f"{path}: unknown {kind}; the nearest known one is {bare[near[0]]}")
        if not isinstance(content, dict):
            raise ConfigurationError(f"{path}: {section} is a section: write [{section}] and its settings below")
        for key in content:
            if key not in keys[section]:
                name = f"{section}.{key}"
                raise ConfigurationError(f"{path}: unknown setting {name}{_nearest(name, names)}")


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1, 0.0)
    return f"; the nearest known one is {near[0]}" if near else ""


def _stray_variables(environ: Mapping[str, str]) -> Iterator[str]:
    # Only a warning: Kubernetes sets WALDEN_CLIENT_PORT and the like for a service that happens to be named so.
    known = {variable for one in described() for variable in one.variables} | {"WALDEN_CONFIG"}
    prefixes = tuple(f"WALDEN_{section}_".upper() for section in sections())
    for name in sorted(environ):
        if name not in known and name.startswith(prefixes):
            yield f"environment variable {name} is no setting{_nearest(name, sorted(known))}"


def variable_of(one: Described, environ: Mapping[str, str]) -> str | None:
    """The environment variable that sets it, if one does; an empty one only where empty means something."""
    optional = isinstance(one.type, types.UnionType)
    return next((name for name in one.variables if environ.get(name) or (optional and name in environ)), None)


def from_text(one: Described, text: str) -> Any:
    """What TOML would give for the text of an environment variable."""
    kind = one.type
    if kind is bool:
        return {
            "on": True,
            "true": True,
            "yes": True,
            "1": True,
            "off": False,
            "false": False,
            "no": False,
            "0": False,
        }.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _value(one: Described, raw: Any, base: Path, data_dir: Path) -> Any:
    """Turn what TOML gave into the setting's type; ValueError says what was expected."""
    kind = one.type
    if isinstance(kind, types.UnionType):
        if raw == "":
            return None
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple:
        if not isinstance(raw, (list, tuple)) or not all(isinstance(item, str) for item in raw):
            raise ValueError("expected a list of strings")
        if one.choices and (strange := [item for item in raw if item not in one.choices]):
            raise ValueError(f"expected a list of {', '.join(one.choices)}, not {strange[0]!r}")
        return tuple(_path(item, base, data_dir) if get_args(kind)[0] is Path else item for item in raw)
    if kind is bool and not isinstance(raw, bool):
        raise ValueError(f"expected true or false (on or off in the environment), not {raw!r}")
    if kind in (int, float):
        if isinstance(raw, bool) or not isinstance(raw, (int, float)) or (kind is int and not isinstance(raw, int)):
            raise ValueError(f"expected {'a whole number' if kind is int else 'a number'}, not {raw!r}")
        if one.minimum is not None and not raw >= one.minimum:
            raise ValueError(f"expected at least {one.minimum:g}, not {raw!r}")
        return kind(raw)
    if kind is bool:
        return raw
    if not isinstance(raw, str):
        raise ValueError(f"expected a string, not {raw!r}")
    if "\x00" in raw:
        raise ValueError("expected a string without the character U+0000")
    if one.choices and raw not in one.choices:
        raise ValueError(f"expected one of {', '.join(one.choices)}, not {raw!r}{_nearest(raw, one.choices)}")
    if one.pattern and not one.pattern.fullmatch(raw):
        raise ValueError(f"{raw!r} is not a {one.name.replace('.', ' ')}")
    if kind is Path:
        return _path(raw, base, data_dir)
    return Listen.parse(raw) if kind is Listen else raw


def _path(raw: str, base: Path, data_dir: Path) -> Path:
    if not raw:
        raise ValueError("expected a path")
    return base / Path(raw.replace("{data_dir}", str(data_dir))).expanduser()


def _check(settings: Settings) -> None:
    """What no single setting can know."""
    for name, listener in (("client", settings.client), ("federation", settings.federation)):
        if bool(listener.tls_certificate) != bool(listener.tls_key):
            raise ConfigurationError(f"{name}.tls_certificate and {name}.tls_key need each other: set both or none")
    if settings.database.pool_min > settings.database.pool_max:
        raise ConfigurationError("database.pool_min is greater than database.pool_max")
    if settings.registration.mode == "shared-secret" and not settings.registration.shared_secret:
        raise ConfigurationError("registration.mode is shared-secret: set registration.shared_secret as well")
    if settings.registration.email == "required" and not settings.email.smtp_host:
        raise ConfigurationError("registration.email is required: set email.smtp_host as well")
    networks = {
        "identity.allowed_networks": settings.identity.allowed_networks,
        "push.allowed_networks": settings.push.allowed_networks,
        "media.preview_allowed_networks": settings.media.preview_allowed_networks,
    }
    for name, network in ((name, network) for name, found in networks.items() for network in found):
        try:
            ip_network(network, strict=False)
        except ValueError as error:
            raise ConfigurationError(f"{name}: {error}") from None
    if settings.embedded and settings.database.direct_dsn:
        raise ConfigurationError("database.direct_dsn is set but database.dsn is not: set both or none")
    hosts = conninfo_to_dict(settings.database.standby_dsn) if "," in settings.database.standby_dsn else {}
    if any("," in str(hosts.get(name) or "") for name in ("host", "hostaddr", "port")):
        # Each session might come to another one, and none may be behind the others.
        raise ConfigurationError("database.standby_dsn names several servers: name one")
    for field in ("dsn", "direct_dsn", "standby_dsn", *(f"{role}_dsn" for role in get_args(Role) if role != "owner")):
        try:
            conninfo_to_dict(getattr(settings.database, field))
        except Exception as error:
            raise ConfigurationError(f"database.{field} is not a libpq DSN or URL: {error}") from None
