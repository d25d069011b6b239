"""Configs as files: those of the package `configs`, and .py files of one's own.

A config is a module with `get_config(variant: str = "")` that returns a frozen dataclass. Nothing here imports JAX, so
that a mistake in the command is answered at once.
"""

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from parsec.errors import UserError, one_line, shown, unknown
from parsec.run.workdir import locate

# What the names of configs end in, by what they do.
_SEARCH, _TRAIN = "_search", "_train"


class Named(NamedTuple):
    """A config with the words that chose it and the file it came from."""

    name: str
    variant: str
    config: Any
    file: Path

    @property
    def folder(self) -> str:
        """The name of its run directory: <config>[-<variant>]."""
        return f"{self.name}-{self.variant}" if self.variant else self.name


def list_configs() -> dict[str, str]:
    """Returns the first docstring line of every config in the package `configs`, by name."""
    return {path.stem: docstring(path).split("\n")[0] for path in _config_files()}


def load_config(chosen: str) -> Named:
    """Returns the config of a name or path, `:variant` included.

    Raises:
      UserError: for an unknown config or variant, or a file of one's own that cannot be used.
    """
    name, _, variant = chosen.partition(":")
    own = name.endswith(".py")
    files = {} if own else {path.stem: path for path in _config_files()}
    if not own and name not in files:
        raise unknown("config", name, files)
    path = _own_file(name) if own else files[name]
    with _running(path):
        module = _load_file(path) if own else importlib.import_module(f"configs.{name}")
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"{module.__file__} has no function get_config(variant)")
    if not _takes_one(module.get_config):
        raise UserError(f"get_config of {module.__file__} must take the variant, a text: def get_config(variant='')")
    with _running(path):
        config = module.get_config(variant)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise UserError(f"get_config of {module.__file__} returns a {type(config).__name__}, not a config dataclass")
    return Named(path.stem, variant, config, path)


def load_target(chosen: str) -> Named:
    """Returns the config of a transfer's target, as `load_config`; `imagenet` stands for `imagenet_search`."""
    name, colon, variant = chosen.partition(":")
    files = {path.stem for path in _config_files()}
    if name not in files and f"{name}{_SEARCH}" in files:
        return load_config(f"{name}{_SEARCH}{colon}{variant}")
    return load_config(chosen)


def load_training(target: Named) -> Named:
    """Returns the config that trains what a target finds: of NAME_search, NAME_train, in the variant where it has it.

    Raises:
      UserError: there is none of that name, as of a config of one's own.
    """
    name = f"{target.name.removesuffix(_SEARCH)}{_TRAIN}"
    if name not in {path.stem for path in _config_files()}:
        raise UserError(
            f"--train knows no training for the target {target.name!r}, it would be {name}; leave it out, and train "
            f"its cell with --config=NAME{_TRAIN} --config.from_run=RUN_DIR/target"
        )
    with contextlib.suppress(UserError):
        return load_config(f"{name}:{target.variant}")
    return load_config(name)


def docstring(path: Path) -> str:
    """Returns the docstring of a config's file, or why it cannot be read."""
    try:
        return ast.get_docstring(ast.parse(path.read_bytes())) or ""
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        return f"(cannot be read: {one_line(error)})"


def _config_files() -> list[Path]:
    found = importlib.util.find_spec("configs")
    folders = found.submodule_search_locations if found else None
    return sorted(
        path for folder in folders or () for path in Path(folder).glob("*.py") if not path.stem.startswith("_")
    )


def _own_file(name: str) -> Path:
    path = locate(name)
    try:
        found = path.is_file()
    except OSError as error:
        raise UserError(f"cannot read the config file {shown(name)}: {error.strerror}") from error
    if not found:
        raise UserError(f"there is no config file {name}")
    return path


def _load_file(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    # Its dataclasses look for their module, and its JOB may name it.
    before = sys.modules.setdefault(path.stem, module)
    try:
        found.loader.exec_module(module)
    except BaseException:
        if before is module:
            del sys.modules[path.stem]
        raise
    return module


@contextlib.contextmanager
def _running(path: Path) -> Iterator[None]:
    """Turns whatever a config's own code raises into a `UserError` that names the line."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        kind = type(error).__name__
        raise UserError(f"cannot load {where}: {kind}: {one_line(error)}") from error


def _takes_one(function: Callable[..., Any]) -> bool:
    try:
        signature(function).bind("")
    except TypeError:
        return False
    return True
