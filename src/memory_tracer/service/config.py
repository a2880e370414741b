"""The file that ``memory-tracer record --config`` reads: TOML, and nothing in it that is not known."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..model import EventKind
from ..record.scope import Criteria, Scope
from ..record.settings import ProtectionFilter, Settings, parse_size, recently

_DURATION = re.compile(r"(\d+)\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_CONFIG_BYTES = 1 << 20

#: Like ``attach``: the targets are at work for somebody.
_DEFAULTS = Settings(all_calls=False, lossless=False)


@dataclass(frozen=True)
class Config:
    """What a service does. Sizes are in bytes, ages in seconds."""

    directory: Path
    settings: Settings
    rotate_size: int = 1 << 30
    rotate_age: float = 86400.0
    budget: int = 16 << 30
    remove_oldest: bool = False
    listen: str | None = None
    #: What was written, to tell what has changed when it is read again.
    tables: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def same_recording(self, other: Config) -> bool:
        """Whether a recording goes on as it is under ``other``, but for its scope."""
        return self.directory == other.directory and self.tables.get("record") == other.tables.get("record")


def read_config(path: Path) -> Config:
    """Read ``path``. Raises UsageError with one sentence for what cannot be meant."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES).decode()
        tables = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration {path} is not TOML: {error}") from error
    try:
        return _config(tables)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _config(tables: Mapping[str, Any]) -> Config:
    _check_names("", tables, ("capture", "record", "scope", "metrics"))
    capture = _table(tables, "capture")
    _check_names("capture", capture, _CAPTURE)
    if "directory" not in capture:
        raise UsageError("capture.directory is missing: where the captures go")
    metrics = _table(tables, "metrics")
    _check_names("metrics", metrics, ("listen",))
    return Config(
        **_converted("capture", capture, _CAPTURE),
        settings=_settings(_table(tables, "record"), _table(tables, "scope")),
        listen=_text(metrics["listen"]) if "listen" in metrics else None,
        tables=tables,
    )


def _settings(record: Mapping[str, Any], scope: Mapping[str, Any]) -> Settings:
    _check_names("record", record, _RECORD)
    _check_names("scope", scope, ("include", "exclude", "all"))
    include, exclude = (_criteria(f"scope.{name}", _table(scope, name)) for name in ("include", "exclude"))
    if include == Criteria() and scope.get("all") is not True:
        raise UsageError("scope.include is empty; for the whole machine write `all = true` under [scope]")
    return dataclasses.replace(
        _DEFAULTS, scope=Scope(include, exclude), **_converted("record", record, _RECORD)
    )


def _criteria(name: str, table: Mapping[str, Any]) -> Criteria:
    kinds = {
        each.name: int if each.name in ("uids", "pids") else str for each in dataclasses.fields(Criteria)
    }
    _check_names(name, table, kinds)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if not isinstance(value, list) or not all(type(item) is kinds[key] for item in value):
            what = "numbers" if kinds[key] is int else "strings"
            raise UsageError(f"{name}.{key} is not a list of {what}")
        values[key] = tuple(value)
    return Criteria(**values)


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{name} is not a table; write [{name}]")
    return table


def _check_names(name: str, table: Mapping[str, Any], known: Mapping[str, Any] | tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            where = f"{name}.{key}" if name else key
            raise UsageError(f"{where} means nothing; there are {', '.join(known)}")


def _converted(
    name: str, table: Mapping[str, Any], known: Mapping[str, tuple[str, Callable[[Any], Any]]]
) -> dict[str, Any]:
    """The values of a table by the names of the attributes they are for."""
    values = {}
    for key, value in table.items():
        attribute, convert = known[key]
        try:
            values[attribute] = convert(value)
        except UsageError as error:
            raise UsageError(f"{name}.{key}: {error}") from error
    return values


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{value!r} is not a string")
    return value


def _size(value: Any) -> int:
    return parse_size(value if isinstance(value, str) else str(_number(value)))


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise UsageError(f"{value!r} is not a number")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{value!r} is neither true nor false")
    return value


def _duration(value: Any) -> float:
    found = _DURATION.fullmatch(value if isinstance(value, str) else str(_number(value)))
    if found is None or not int(found[1]):
        raise UsageError(f"{value!r} is not a duration; write 90, 15m, 24h or 7d")
    return float(int(found[1]) * _SECONDS[found[2]])


def _directory(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise UsageError(f"{value!r} is not an absolute path")
    return path


def _kinds(value: Any) -> frozenset[EventKind]:
    known = {str(kind): kind for kind in EventKind if kind >= EventKind.MMAP}
    if not isinstance(value, list) or not value or not all(item in known for item in value):
        raise UsageError(f"{value!r} is not a list of kinds of event; there are {', '.join(known)}")
    return frozenset(known[item] for item in value)


def _hook(value: Any) -> str | None:
    return None if value == "auto" else _text(value)


_CAPTURE: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "directory": ("directory", _directory),
    "rotate-size": ("rotate_size", _size),
    "rotate-age": ("rotate_age", _duration),
    "budget": ("budget", _size),
    "remove-oldest": ("remove_oldest", _truth),
}
#: Named like the options of ``attach``.
_RECORD: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "prot": ("protection", lambda value: ProtectionFilter.parse(_text(value))),
    "event": ("kinds", _kinds),
    "follow": ("follow", _truth),
    "exclude-file-backed": ("exclude_file_backed", _truth),
    "ring-size": ("ring_bytes", _size),
    "exact": ("exact", _truth),
    "lossless": ("lossless", _truth),
    "hook": ("hook", _hook),
    "file-age": ("files_since_ns", lambda value: recently(_number(value))),
    "sample-rate": ("sample_rate", _number),
    "pass-rate": ("pass_rate", _number),
    "all-calls": ("all_calls", _truth),
    "call-share": ("call_share", _number),
}
