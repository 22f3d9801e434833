"""Writing walden.toml and its reference page from the settings' own declarations.

Invariant: what `walden init` writes reads back to the settings that were in force, so that a later command finds the
same installation without the environment variables of the first one.
"""

import inspect
import json
import os
import secrets
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from eventlog.configuration import (
    Described,
    Listen,
    Settings,
    configuration_path,
    described,
    from_text,
    load_settings,
    sections,
    variable_of,
)


def ensure_configuration(environ: Mapping[str, str]) -> tuple[Settings, bool]:
    """The settings; walden.toml is written first if there is none (True). Raises ConfigurationError, and writes nothing."""
    path = configuration_path(environ)
    if path.exists():
        return load_settings(environ), False
    unfinished = path.with_name(f".{path.name}.unfinished")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished.unlink(missing_ok=True)
    # It may hold a database password and holds the registration secret.
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(configuration_text(_chosen(environ, path)))
        load_settings(environ, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return load_settings(environ), True


def configuration_text(chosen: Mapping[str, Any]) -> str:
    """A walden.toml with every setting: those in `chosen` (dotted name to TOML value) set, the others as comments."""
    lines = [
        "# Walden's settings. Each can also be set in the environment, as WALDEN_SECTION_KEY.",
        "# A setting behind a comment sign has its default; docs/configuration.md describes them all.",
    ]
    section = ""
    for one in described():
        if one.section != section:
            section = one.section
            lines += ["", f"[{section}]"]
        sign = "" if one.name in chosen else "# "
        lines += [f"# {one.doc}", f"{sign}{one.key} = {_toml(chosen.get(one.name, one.default))}"]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The page docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "<!-- Made by `walden config reference`; edit eventlog/settings.py instead. -->",
        "",
        "Walden reads `walden.toml` and the environment; a value from the environment wins. The file is the one that",
        "`WALDEN_CONFIG` names, else `walden.toml` in the folder `WALDEN_DATA_DIR`, else `walden.toml` in the current folder",
        "(for `bin/up` and `bin/walden`: of the checkout). `walden init` writes it with every setting in it. A key that does",
        "not exist is an error that names the nearest one that does. Relative paths in the file are relative to the file;",
        "`{data_dir}` in a path stands for the data directory. In the environment, switches are `on` or `off` and lists are",
        "separated by commas.",
    ]
    for section, kind in sections().items():
        lines += ["", f"## [{section}]", "", inspect.cleandoc(kind.__doc__ or ""), ""]
        lines += ["| setting | type | default | environment | |", "|---|---|---|---|---|"]
        for one in described():
            if one.section == section:
                variables = ", ".join(f"`{name}`" for name in one.variables)
                lines.append(
                    f"| `{one.key}` | {_type(one)} | `{_toml(one.default)}` | {variables} | {_sentence(one)} |"
                )
    return "\n".join(lines) + "\n"


def _chosen(environ: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What the file has to say: what the environment says now, and what must not change by accident later."""
    chosen: dict[str, Any] = {
        "server.name": "localhost",
        "server.data_dir": "data",
        "registration.shared_secret": secrets.token_urlsafe(32),
    }
    for one in described():
        variable = variable_of(one, environ)
        if variable is None:
            continue
        value = from_text(one, environ[variable])
        if value and _holds(one, Path):
            values = [value] if isinstance(value, str) else value
            absolute = [item if item.startswith("{data_dir}") else os.path.abspath(item) for item in values]
            value = absolute[0] if isinstance(value, str) else absolute
        chosen[one.name] = value
    if chosen["server.data_dir"] == str(path.parent):
        chosen["server.data_dir"] = "."
    return chosen


def _holds(one: Described, kind: type) -> bool:
    return one.type is kind or kind in get_args(one.type)


def _toml(value: Any) -> str:
    # A JSON string, number or list of strings is a TOML one as well.
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _type(one: Described) -> str:
    kind = get_args(one.type)[0] if isinstance(one.type, types.UnionType) else one.type
    if get_origin(kind) is tuple:
        return "list of paths" if get_args(kind)[0] is Path else "list of strings"
    names = {str: "string", int: "whole number", float: "number", bool: "switch", Path: "path", Listen: "address:port"}
    return names[kind]


def _sentence(one: Described) -> str:
    bounds = f" One of {', '.join(f'`{choice}`' for choice in one.choices)}." if one.choices else ""
    if one.minimum is not None:
        bounds += f" At least {one.minimum:g}."
    return one.doc + bounds
