"""Settings from a TOML file, then ``AGENTSTREAM_*``, then flags; and the only reader of the environment.

One rule for names: the setting ``section.name`` is ``name`` in the file's ``[section]``, and ``AGENTSTREAM_SECTION_NAME`` in the
environment. There is no second spelling. A list in a variable is separated by commas, or is JSON; ``AGENTSTREAM_AGENTS`` is the
``[agents]`` table as JSON. Paths in a file are relative to that file, all others to the current directory; ``~`` is the home
directory. A later source wins setting by setting (lists are replaced, not joined), and where each value came from is kept.

Variables that are no settings: ``AGENTSTREAM_CONFIG`` names the file, ``AGENTSTREAM_URL`` and ``AGENTSTREAM_TOKEN`` are for
clients, and the daemon marks its children with ``AGENTSTREAM_RUN_ID`` and ``AGENTSTREAM_WORK_ORDER_ID``.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

import attrs
import orjson

from agentstream.errors import ConfigError
from agentstream.settings import SECTIONS, AgentSettings, ServerSettings, Settings, is_loopback

PREFIX: Final = "AGENTSTREAM_"
_NO_SETTINGS: Final = frozenset(
    {"AGENTSTREAM_CONFIG", "AGENTSTREAM_URL", "AGENTSTREAM_TOKEN", "AGENTSTREAM_RUN_ID", "AGENTSTREAM_WORK_ORDER_ID"}
)

#: What a child gets of the daemon's environment, besides what its adapter names. An allow-list: what nobody thought of stays here.
CHILD_VARIABLES: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "TMPDIR", "LANG", "LC_*", "XDG_*"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)


def process_environment() -> dict[str, str]:
    """The environment of this process, as a copy."""
    return dict(os.environ)


def child_environment(environ: Mapping[str, str], variables: Iterable[str]) -> dict[str, str]:
    """What a child may have of ``environ``: `CHILD_VARIABLES` and what ``variables`` name (``PREFIX_*`` allowed).

    Never anything of ours, whatever the patterns say: a token in there would let the agent command its own daemon.
    """
    patterns = (*CHILD_VARIABLES, *variables)
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(PREFIX) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def writes_to_journald(environ: Mapping[str, str], fd: int) -> bool:
    """Whether ``fd`` is systemd's journal: ``JOURNAL_STREAM`` names the device and inode of it (systemd.exec(5))."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


# --- loading -------------------------------------------------------------------------------------------------------


def load(
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    toml_path: str | Path | None = None,
) -> Settings:
    """The settings. ``overrides`` are the flags by dotted name (``{"server.port": 0}``); those that are None were not given.

    Without ``toml_path`` the file is ``AGENTSTREAM_CONFIG``, or ``$XDG_CONFIG_HOME/agentstream/config.toml`` if that exists.
    ``environ`` None: this process's. Raises `ConfigError` for a file that can't be read, an unknown name (with the nearest known
    one), a wrong type or a value out of bounds; the message says where it came from.
    """
    environ = process_environment() if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    agents: dict[str, dict[str, Any]] = {}
    home = environ.get("HOME")
    for given in _sources(overrides or {}, environ, toml_path):
        kind = _kind(given)
        value = _read(kind, given, home)
        origins[given.name] = given.origin
        section, _, rest = given.name.partition(".")
        if section == "agents":
            agent, _, key = rest.rpartition(".")
            agents.setdefault(agent, {})[key] = value
        else:
            values[given.name] = value
    if "server.data_dir" not in values:
        values["server.data_dir"] = default_data_dir(environ)
    if "runs.workspace_roots" not in values:
        values["runs.workspace_roots"] = (_default_root(),)
    sections = {
        section: _make(
            cls,
            {name.partition(".")[2]: value for name, value in values.items() if name.partition(".")[0] == section},
            section,
            origins,
        )
        for section, cls in SECTIONS.items()
    }
    tables = {agent: _make(AgentSettings, table, f"agents.{agent}", origins) for agent, table in agents.items()}
    return Settings(**sections, agents=tables, origins=origins)


def check_agents(settings: Settings, known: Iterable[str]) -> None:
    """Refuse ``[agents.TYPE]`` for a type that no adapter has."""
    known = list(known)
    for agent in settings.agents:
        if agent not in known:
            raise ConfigError(f"agents.{agent}: no such agent type{_suggest(agent, known)}")


def check_extras(settings: Settings) -> None:
    """Refuse settings that need what is not installed."""
    if settings.telemetry.otlp_endpoint is None:
        return
    try:
        found = find_spec("opentelemetry.sdk") and find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError(
            "telemetry.otlp_endpoint needs OpenTelemetry, which is not installed: pip install 'agentstream[otel]'"
        )


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/agentstream``, or ``~/.local/state/agentstream`` (XDG base directories, which ignore relative paths)."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "agentstream"


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    named = Path(environ.get(variable, ""))
    return named if named.is_absolute() else Path(environ.get("HOME") or Path.home()) / fallback


def _default_root() -> Path:
    here = Path.cwd()
    if here == Path("/"):
        raise ConfigError("the current directory is /, which would be no limit at all: name runs.workspace_roots")
    return here


@attrs.frozen
class _Given:
    """One value as somebody wrote it. ``text``: it came as text and may be read as a number, a list, and so on."""

    name: str
    value: Any
    origin: str
    text: bool
    base: Path


def _sources(
    overrides: Mapping[str, Any], environ: Mapping[str, str], toml_path: str | Path | None
) -> Iterator[_Given]:
    here = Path.cwd()
    path = Path(toml_path) if toml_path is not None else None
    if path is None and environ.get("AGENTSTREAM_CONFIG"):
        path = Path(environ["AGENTSTREAM_CONFIG"])
    if path is None:
        usual = _xdg(environ, "XDG_CONFIG_HOME", ".config") / "agentstream" / "config.toml"
        path = usual if usual.exists() else None
    if path is not None:
        origin = str(path)
        for name, value in _flat(_toml(path), origin):
            yield _Given(name, value, origin, text=False, base=path.absolute().parent)
    variables = _variables()
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in _NO_SETTINGS:
            continue
        if name == "AGENTSTREAM_AGENTS":
            for inner, item in _flat({"agents": _json(value, name)}, name):
                yield _Given(inner, item, name, text=False, base=here)
        elif name in variables:
            yield _Given(variables[name], value, name, text=True, base=here)
        else:
            raise ConfigError(f"{name}: no such setting{_suggest(name, [*variables, *_NO_SETTINGS])}")
    for name, value in overrides.items():
        if value is not None:
            yield _Given(name, value, "command line", text=isinstance(value, str), base=here)


def _variables() -> dict[str, str]:
    return {
        f"{PREFIX}{section}_{field.name}".upper(): f"{section}.{field.name}"
        for section, cls in SECTIONS.items()
        for field in attrs.fields(cls)
    }


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _json(text: str, origin: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{origin}: not JSON: {error}") from None


def _flat(table: Mapping[str, Any], origin: str) -> Iterator[tuple[str, Any]]:
    for section, values in table.items():
        if section != "agents" and section not in SECTIONS:
            raise ConfigError(f"{origin}: no section [{section}]{_suggest(section, [*SECTIONS, 'agents'])}")
        if not isinstance(values, dict):
            raise ConfigError(f"{origin}: {section}: expected a table, got {values!r}")
        for key, value in values.items():
            if section != "agents":
                yield f"{section}.{key}", value
                continue
            if not isinstance(value, dict):
                raise ConfigError(f"{origin}: agents.{key}: expected a table, [agents.{key}], got {value!r}")
            for inner, item in value.items():
                yield f"agents.{key}.{inner}", item


# --- one value -----------------------------------------------------------------------------------------------------


def _kind(given: _Given) -> Any:
    section, _, key = given.name.partition(".")
    cls = AgentSettings if section == "agents" else SECTIONS.get(section)
    key = key.rpartition(".")[2]
    hints = typing.get_type_hints(cls) if cls else {}
    if key not in hints:
        known = [f"{name}.{field.name}" for name, cls in SECTIONS.items() for field in attrs.fields(cls)]
        if section == "agents":
            known = [f"{given.name.rpartition('.')[0]}.{field.name}" for field in attrs.fields(AgentSettings)]
        raise ConfigError(f"{given.origin}: {given.name}: no such setting{_suggest(given.name, known)}")
    return hints[key]


class _WrongType(Exception):
    """Carries what was expected."""


def _read(kind: Any, given: _Given, home: str | None) -> Any:
    try:
        return _convert(kind, given.value, given, home)
    except _WrongType as wrong:
        secret = given.name.endswith(".env")
        got = "" if secret else f", got {given.value!r}"
        raise ConfigError(f"{given.name}: expected {wrong}{got} (from {given.origin})") from None


def _convert(kind: Any, value: Any, given: _Given, home: str | None) -> Any:
    origin = get_origin(kind)
    if origin is types.UnionType:
        return None if value == "none" else _convert(get_args(kind)[0], value, given, home)
    if origin is Literal:
        if value not in get_args(kind):
            raise _WrongType("one of " + ", ".join(get_args(kind)))
        return value
    if origin is tuple:
        if given.text and isinstance(value, str):
            value = _json(value, given.origin) if value.startswith("[") else [part for part in value.split(",") if part]
        if not isinstance(value, list | tuple):
            raise _WrongType("a list")
        return tuple(_convert(get_args(kind)[0], item, given, home) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise _WrongType("a table of strings")
        return dict(value)
    return _scalar(kind, value, given, home)


def _scalar(kind: Any, value: Any, given: _Given, home: str | None) -> Any:
    if kind is bool:
        spelled = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        value = spelled.get(value.lower(), value) if given.text and isinstance(value, str) else value
        if type(value) is not bool:
            raise _WrongType("true or false")
        return value
    if kind in (int, float):
        if given.text and isinstance(value, str):
            try:
                value = kind(value)
            except ValueError:
                raise _WrongType("an integer" if kind is int else "a number") from None
        if type(value) not in ((int,) if kind is int else (int, float)):
            raise _WrongType("an integer" if kind is int else "a number")
        return kind(value)
    if kind is Path:
        if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
            raise _WrongType("a path")
        text = str(value)
        if home and (text == "~" or text.startswith("~/")):
            text = home + text[1:]
        return given.base / text
    if not isinstance(value, str):
        raise _WrongType("a string")
    return value


def _make(cls: type[Any], values: dict[str, Any], section: str, origins: Mapping[str, str]) -> Any:
    try:
        return cls(**values)
    except ValueError as error:
        # attrs' own validators: "'port' must be <= 65535: 70000".
        name, _, rule = str(error).removeprefix("'").partition("' must be ")
        rule, _, value = rule.rpartition(": ")
        origin = origins.get(f"{section}.{name}", "default")
        raise ConfigError(f"{section}.{name}: expected a value {rule}, got {value} (from {origin})") from None


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


# --- finding the daemon ----------------------------------------------------------------------------------------------


@attrs.frozen
class DaemonAddress:
    """Where a client finds the daemon. ``url`` is ``http://HOST:PORT``, ``https://...`` or ``unix:/PATH``."""

    url: str
    #: None where none is needed (``--no-auth``) or none was found.
    token: str | None = attrs.field(repr=False)


def find_daemon(
    *,
    url: str | None = None,
    token: str | None = None,
    data_dir: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> DaemonAddress:
    """The daemon of the flags, else of ``AGENTSTREAM_URL`` and ``AGENTSTREAM_TOKEN``, else of the data directory.

    The data directory holds ``url`` (written by `announce` while the daemon listens) and ``token``. The token file is this
    machine's administrator: it is sent to a daemon of this machine only, never to a URL elsewhere that somebody was talked
    into. Raises `ConfigError` for a URL that is none.
    """
    environ = process_environment() if environ is None else environ
    directory = Path(data_dir or environ.get("AGENTSTREAM_SERVER_DATA_DIR") or default_data_dir(environ))
    named = url or environ.get("AGENTSTREAM_URL") or None
    found = named or _first_line(directory / "url") or "http://127.0.0.1:{}".format(_default(ServerSettings, "port"))
    parts = urlsplit(found)
    if not (parts.scheme in ("http", "https") and parts.hostname) and not (parts.scheme == "unix" and parts.path):
        raise ConfigError(f"{found!r} is no address of a daemon: expected http://HOST:PORT, https://HOST or unix:/PATH")
    token = token or environ.get("AGENTSTREAM_TOKEN") or None
    if token is None and (named is None or parts.scheme == "unix" or is_loopback(parts.hostname or "")):
        token = _first_line(directory / "token")
    return DaemonAddress(found.rstrip("/"), token)


def announce(data_dir: Path, url: str) -> None:
    """Write ``DIR/url``, so that clients find a daemon that picked a free port."""
    temporary = data_dir / f".url.{os.getpid()}"
    temporary.write_text(url + "\n", encoding="utf-8")
    temporary.replace(data_dir / "url")


def retract(data_dir: Path, url: str) -> None:
    """Remove ``DIR/url`` if it is still ours; another daemon may have taken over the directory."""
    if _first_line(data_dir / "url") == url:
        (data_dir / "url").unlink(missing_ok=True)


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _default(cls: type[Any], name: str) -> Any:
    return attrs.fields_dict(cls)[name].default
