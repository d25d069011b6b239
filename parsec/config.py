"""Configs as frozen dataclasses: every option typed, bounded and documented, and settable as `--config.key=value`.

A job's settings are one frozen dataclass whose fields are made by `option`; groups of settings are nested dataclasses.
The command line edits an `ml_collections.ConfigDict` copy, which is checked and turned back into the dataclass once, so
that everything behind the command line sees plain frozen values. A misspelt key is never ignored.

Fields may be bool, int, float, str, a tuple of one of these (`tuple[str, ...]`), any of them or None (`float | None`),
or a nested dataclass. A number that may be None may be given as infinite, which is None: JSON has no infinity.
"""

import contextlib
import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from parsec.config_values import allowed, check_range, convert, name_of, parse
from parsec.errors import UserError, shown

T = TypeVar("T")


def option(
    default: T,
    help: str,
    *,
    choices: Collection[Any] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    affects_results: bool = True,
) -> T:
    """Returns a dataclass field for one documented setting.

    Args:
      default: the value when nothing is given; a frozen dataclass makes a group of settings.
      help: one line for `--help` and the documentation.
      choices: the values allowed, when they are few; for a tuple, the values its items may take. A registry is looked
        into when a value is checked, so what was registered later is allowed.
      minimum: least value allowed, for numbers and for every item of a tuple of numbers.
      maximum: largest value allowed; without one, an integer may be as large as an int32.
      affects_results: False for a setting that a run may change when it goes on, because what is found stays the same:
        where files lie, how often something is saved, how many processes work.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "affects_results": affects_results,
    }
    return typing.cast(T, dataclasses.field(default=default, metadata=metadata))


def to_config_dict(config: Any) -> ConfigDict:
    """Returns the settings of a config dataclass as a locked `ConfigDict`, nested alike."""
    return ConfigDict(_as_dict(config)).lock()


def from_config_dict(cls: type[T], config_dict: Mapping[str, Any] | ConfigDict, flag: str = "config") -> T:
    """Returns the config dataclass of type `cls` with the settings of `config_dict`; absent keys keep their defaults.

    Args:
      cls: the dataclass.
      config_dict: settings, nested as the dataclass is.
      flag: what the command line calls this config, for errors.

    Raises:
      UserError: for a key that `cls` does not have, or a value of the wrong type or not among those allowed.
    """
    _check_keys(cls, config_dict, _leaves(cls), "", flag)
    return _build(cls, config_dict, f"{flag}.", None)


def override(config: T, settings: Mapping[str, str], flag: str = "config") -> T:
    """Returns the config with settings as typed on a command line.

    Args:
      config: a config dataclass.
      settings: key path such as `optimizer.learning_rate` -> text; a tuple's items are separated by commas.
      flag: what the command line calls this config, for errors.

    Raises:
      UserError: for an unknown key, a group named as if it were a setting, or text that does not fit.
    """
    edited: Any = to_config_dict(config)
    fields = _leaves(type(config))
    with edited.ignore_type():
        for path, text in settings.items():
            if path not in fields:
                inside = [name for name in fields if name.startswith(f"{path}.")]
                if inside:
                    listed = ", ".join(f"{flag}.{name}" for name in inside)
                    raise UserError(f"{flag}.{path} is a group of settings, not one; set one of {listed}")
                raise _unknown_key(path, fields, flag)
            *groups, name = path.split(".")
            inner = edited
            for group in groups:
                inner = inner[group]
            inner[name] = parse(text, fields[path].kind, f"{flag}.{path}")
    return from_config_dict(type(config), edited, flag)


def amend(config: T, settings: Mapping[str, Any], prefix: str = "config.") -> T:
    """Returns a config without groups with some settings changed, given as values or as text.

    Args:
      config: a config dataclass.
      settings: key -> value, or the text of one; every key is one of the config's.
      prefix: written before a key in an error.

    Raises:
      UserError: for a value or a text that does not fit.
    """
    fields = _leaves(type(config))
    values = {
        name: parse(given, fields[name].kind, prefix + name) if isinstance(given, str) else given
        for name, given in settings.items()
    }
    return _build(type(config), values, prefix, config)


def check(config: T, flag: str = "config") -> T:
    """Returns the config unchanged, or raises `UserError` naming its first value that the fields do not allow."""
    return from_config_dict(type(config), to_config_dict(config), flag)


def describe(config: Any, prefix: str = "--config.") -> str:
    """Returns one line for each setting of a config dataclass, class or instance: key, value, help, type and range.

    Args:
      config: a config dataclass or its class.
      prefix: written before every key.
    """
    cls = config if isinstance(config, type) else type(config)
    values = dict(flatten(cls() if isinstance(config, type) else config))
    rows = []
    for path, leaf in _leaves(cls).items():
        shown = ",".join(map(str, values[path])) if isinstance(values[path], tuple) else str(values[path])
        kind = f"{name_of(leaf.kind)}{allowed(leaf.metadata)}"
        rows.append((f"{prefix}{path}={shown}", f"{leaf.metadata.get('help', '')} ({kind})"))
    width = min(max((len(left) for left, _ in rows), default=0), 44)
    return "\n".join(f"{left:<{width}}  {right}" for left, right in rows)


def to_json(config: Any) -> str:
    """Returns the settings as indented JSON text in field order, ending in a newline."""
    return json.dumps(_as_dict(config), indent=2) + "\n"


def flatten(config: Any) -> Iterator[tuple[str, Any]]:
    """Yields (key path, value) for every setting of a config dataclass or a nested mapping, in order."""
    items = config.items() if isinstance(config, Mapping) else _as_dict(config).items()
    for name, value in items:
        if isinstance(value, Mapping):
            yield from ((f"{name}.{path}", inner) for path, inner in flatten(value))
        else:
            yield name, value


@contextlib.contextmanager
def renamed_settings(config: Any, rename: Callable[[str], str]) -> Iterator[None]:
    """Gives the settings of a config, or groups of them, in errors raised inside the names by which they are set there.

    Args:
      config: whose settings errors name as `config.KEY`; whatever else looks like one, such as config.json, stays.
      rename: from a key path to the whole name.

    Raises:
      UserError: that of the inside, with its settings renamed.
    """
    known = [key for key, _ in flatten(config)]

    def renamed(match: re.Match[str]) -> str:
        is_setting = any(f"{key}.".startswith(f"{match[1]}.") for key in known)
        return rename(match[1]) if is_setting else match[0]

    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"\bconfig\.(\w+(?:\.\w+)*)", renamed, str(error))) from error


def changed_settings(stored: Mapping[str, Any], config: Any) -> dict[str, tuple[Any, Any]]:
    """Returns the settings with which a run that began with `stored` would give other results under `config`.

    Args:
      stored: settings read back from JSON; one that did not exist when the run began had its default.
      config: a config dataclass.

    Returns:
      Key path -> (value before, value now); a key that the config no longer has is "absent" now.
    """
    cls = type(config)
    now = dict(flatten(json.loads(to_json(config))))
    defaults = {path: _plain(value) for path, value in _defaults(cls)}
    changed = {}
    for path, leaf in _leaves(cls).items():
        before = _at(stored, path, defaults.get(path, "absent"))
        if leaf.metadata.get("affects_results", True) and before != now[path]:
            changed[path] = (before, now[path])
    return changed | {path: (before, "absent") for path, before in _extra(cls, stored, "")}


def affecting_results(config: Any) -> dict[str, Any]:
    """Returns the settings of a config dataclass, nested alike, without those that results do not depend on."""
    kept = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            kept[field.name] = affecting_results(value)
        elif field.metadata.get("affects_results", True):
            kept[field.name] = value
    return kept


@dataclasses.dataclass(frozen=True)
class _Leaf:
    kind: Any
    metadata: Mapping[str, Any]


def _as_dict(config: Any) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return dict(config)
    return dataclasses.asdict(config)


def _leaves(cls: Any, prefix: str = "") -> dict[str, _Leaf]:
    hints = typing.get_type_hints(cls)
    found: dict[str, _Leaf] = {}
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            found |= _leaves(kind, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = _Leaf(kind, field.metadata)
    return found


def _defaults(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (key path, default) for every setting that has one; a group's defaults are those of its instance."""
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.default):
            yield from flatten({prefix + field.name: _as_dict(field.default)})
        elif field.default is not dataclasses.MISSING:
            yield prefix + field.name, field.default


def _plain(value: Any) -> Any:
    """Returns the value as JSON gives it back."""
    return json.loads(json.dumps(value))


def _at(settings: Any, path: str, otherwise: Any) -> Any:
    for name in path.split("."):
        if not isinstance(settings, Mapping) or name not in settings:
            return otherwise
        settings = settings[name]
    return settings


def _extra(cls: Any, given: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yields (key path, value) for what the dataclass has no field for."""
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    for name, value in given.items():
        if name not in names:
            yield prefix + str(name), value
        elif dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            yield from _extra(hints[name], value, f"{prefix}{name}.")


def _check_keys(cls: Any, given: Any, leaves: dict[str, _Leaf], prefix: str, flag: str) -> None:
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    for name, value in given.items():
        if name not in names:
            raise _unknown_key(prefix + name, leaves, flag)
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping | ConfigDict):
                raise UserError(f"{flag}.{prefix}{name} is a group of settings, not {shown(value)}")
            _check_keys(hints[name], value, leaves, f"{prefix}{name}.", flag)


def _unknown_key(path: str, leaves: Mapping[str, _Leaf], flag: str) -> UserError:
    """Returns the error for a key that no config has: it lists the keys of the group it was looked for in."""
    group, _, name = path.rpartition(".")
    prefix = f"{group}." if any(leaf.startswith(f"{group}.") for leaf in leaves) else ""
    inside = [leaf.removeprefix(prefix) for leaf in leaves if leaf.startswith(prefix)]
    listed = dict.fromkeys(leaf.partition(".")[0] + (".*" if "." in leaf else "") for leaf in inside)
    elsewhere = [leaf for leaf in leaves if leaf.rpartition(".")[2] == name]
    siblings = [leaf for leaf in inside if "." not in leaf]
    near = (
        difflib.get_close_matches(path, elsewhere, n=1, cutoff=0)
        or [prefix + leaf for leaf in difflib.get_close_matches(name, siblings, n=1)]
        or difflib.get_close_matches(path, [] if prefix else leaves, n=1)
    )
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(
        f"unknown {flag} key {shown(path)}; {flag}{'.' * bool(prefix)}{prefix[:-1]} has {', '.join(listed)}{hint}"
    )


def _build(cls: Any, given: Any, prefix: str, base: Any) -> Any:
    hints = typing.get_type_hints(cls)
    values = {}
    for field in dataclasses.fields(cls):
        path = prefix + field.name
        if field.name not in given:
            continue
        if dataclasses.is_dataclass(hints[field.name]):
            inner = None if field.default is dataclasses.MISSING else field.default
            values[field.name] = _build(hints[field.name], given[field.name], f"{path}.", inner)
        else:
            value = convert(given[field.name], hints[field.name], path)
            check_range(value, field.metadata, path)
            values[field.name] = value
    return cls(**values) if base is None else dataclasses.replace(base, **values)
