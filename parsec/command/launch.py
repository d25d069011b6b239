"""From the words of a command line to a running job: config, overrides, the process's environment, the job's function.

A config (`parsec.command.config_files`) names its job in the class attribute `JOB` of its dataclass, "module:function",
which is called as `function(config, workdir)`. Nothing here imports JAX, so that a mistake in the command is answered
at once.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import logging
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parsec.command.config_files import docstring, load_config, load_target, load_training
from parsec.command.network_commands import NETWORK_FLAGS
from parsec.config import check, describe, override, to_json
from parsec.errors import UserError, one_line, shown, unknown
from parsec.files import cache_home, expanded
from parsec.run.terminal import MENDABLE, output_error
from parsec.run.workdir import RESULT, SOURCE, TARGET, inspect, locate
from parsec.settings.search import joint_entry

FLAGS = (
    "--config",
    "--config.KEY=VALUE",
    "--workdir",
    "--transfer_to",
    "--target.KEY=VALUE",
    "--train",
    "--train.KEY=VALUE",
    "--multihost",
    *(f"--{name}" for name in NETWORK_FLAGS),
    "--help",
)
# Of the training after a transfer, what the target says.
_OF_TARGET = ("dataset", "data_dir", "from_run", "genotype", "weights")
# Of a CPU's cores, at most so many are devices of their own.
_MOST_CORES = 8


class Overrides(NamedTuple):
    """Settings as typed, key path -> text: of the config, of a transfer's target, and of the training of its cell."""

    config: dict[str, str]
    target: dict[str, str]
    train: dict[str, str]


def launch(
    chosen: str,
    overrides: Sequence[str],
    workdir: str | None,
    transfer_to: str | None,
    train: bool = False,
    multihost: bool = False,
) -> None:
    """Runs the job of a config.

    Args:
      chosen: a config's name or the path of a .py file, with `:variant` where wanted.
      overrides: what the command line held beside the flags: `--config.key=value`, or `--config.key` and `value`, and
        `--target.key` and `--train.key` likewise.
      workdir: the run directory; runs/<config>[-<variant>] by default.
      transfer_to: a second config, for which the prior that the first one learnt is carried over; or None.
      train: whether a transfer goes on to train the cell that it finds.
      multihost: whether this process is one of several that run the job together; see `parsec.run.multihost`.

    Raises:
      UserError: for anything in the command, the files or the machine that its user can put right.
    """
    settings = parse_overrides(overrides)
    prepare_process()
    named = load_config(chosen)
    if multihost and hasattr(named.config, "devices"):
        settings.config.setdefault("devices", "0")
    config = check(override(named.config, settings.config))
    if multihost:
        _check_multihost(chosen, config, transfer_to)
    _check_roles(settings, transfer_to is not None, train)
    folder, arguments, more, job = named.folder, (config,), (), getattr(type(config), "JOB", "")
    if transfer_to is not None:
        target = load_target(transfer_to)
        folder = f"{named.folder}-to-{target.folder}"
        target_config = check(override(target.config, settings.target, "target"), "target")
        arguments, job = (config, target_config), "parsec.jobs.transfer:run_transfer"
        if train:
            more = (check(override(load_training(target).config, settings.train, "train"), "train"),)
    run_directory = locate(workdir or Path("runs", folder))

    def run(run_directory: Path) -> None:
        # Before the job's module is imported, which takes seconds.
        first = run_directory / SOURCE if transfer_to is not None else run_directory
        inspect(first, config)
        if not (first / RESULT).exists():
            check_paths(config)
        for target_config in arguments[1:]:
            if not (run_directory / TARGET / RESULT).exists():
                check_paths(target_config, "target")
        _use_every_core()
        _check_platforms()
        try:
            _entry(job, chosen)(*arguments, run_directory, *more)
        except OSError as error:
            # What has a name, and standard output, main.py tells of.
            if error.errno not in MENDABLE or error.filename is not None or output_error():
                raise
            raise UserError(f"cannot write {run_directory}: {error.strerror}") from error

    if not multihost:
        run(run_directory)
        return
    from parsec.run.multihost import run_together

    _use_every_core()
    run_together(run, run_directory, f"{job} {to_json(config)}", (run_directory / RESULT).is_file())


def check_paths(config: Any, flag: str = "config") -> None:
    """Raises `UserError` where a config's `data_dir` or `table` leads nowhere; what is in them, the job checks."""
    prepares = str(getattr(config, "dataset", "")).removeprefix("stream:").startswith("tfds:")
    for name in ("data_dir", "table"):
        given = getattr(config, name, "")
        if not isinstance(given, str) or not given or (name == "data_dir" and prepares):
            continue
        try:
            found = expanded(given).exists()
        except OSError as error:
            raise UserError(f"{flag}.{name}={shown(given)}: {error.strerror}") from error
        if not found:
            raise UserError(f"{flag}.{name}={shown(given)} does not exist")


def explain(chosen: str, transfer_to: str | None = None, train: bool = False) -> str:
    """Returns a config's docstring and a line for each of its settings, and of those that a transfer has besides."""
    configs = {"config": load_config(chosen)}
    _check_roles(Overrides({}, {}, {}), transfer_to is not None, train)
    if transfer_to is not None:
        configs["target"] = load_target(transfer_to)
        configs |= {"train": load_training(configs["target"])} if train else {}
    parts = []
    for flag, named in configs.items():
        title = f"Settings of {type(named.config).__name__}:"
        parts += [docstring(named.file), title, describe(named.config, f"--{flag}.")]
        # What the values of some settings may be, where one line each does not say it.
        parts += named.config.explain() if hasattr(named.config, "explain") else []
    return "\n\n".join(parts)


def parse_overrides(words: Sequence[str]) -> Overrides:
    """Returns the settings in words such as `--config.seed=3`, or `--config.seed` followed by `3`.

    Raises:
      UserError: for a word that is no override, or an override without a value.
    """
    settings = Overrides({}, {}, {})
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        role, dot, key = flag.removeprefix("--").partition(".")
        if not flag.startswith("--") or role not in Overrides._fields or not dot:
            raise unknown("flag", flag, FLAGS)
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"{flag} needs a value: {flag}=VALUE")
            value = rest.pop(0)
        getattr(settings, role)[key] = value
    return settings


def prepare_process() -> None:
    """Silences the libraries' chatter and turns on JAX's persistent compile cache; call it before JAX is imported.

    The cache lies in the user's cache folder, one folder for each processor and JAX version, because compiled code is
    refused, or worse, by a machine that lacks an instruction. What the environment already says is kept.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # A damaged checkpoint is reported by one line of ours; Orbax would add a page for each of its unfinished reads.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _pass_over_late_callbacks()
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = compile_cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")


def compile_cache_folder() -> Path:
    """Returns the folder for programs compiled on this machine by this version of JAX."""
    described = [platform.system(), platform.machine(), platform.processor()]
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(errors="replace").split("\n\n")[0].splitlines()
        described += [line for line in lines if line.partition("\t")[0].strip() in ("model name", "flags", "Features")]
    key = hashlib.sha256("\n".join(described).encode()).hexdigest()[:12]
    return cache_home() / "parsec" / f"jax-{importlib.metadata.version('jax')}-{key}"


def _check_multihost(chosen: str, config: Any, transfer_to: str | None) -> None:
    """Raises `UserError` where a job is not made for several processes."""
    what, job = f"config {chosen}", getattr(type(config), "JOB", "")
    if transfer_to is not None:
        what = "a transfer"
    elif job.endswith(":run_train") or (job.endswith(":run_search") and joint_entry(config) is not None):
        return
    elif job.endswith(":run_search"):
        what = f"a search by scores, {config.strategy.name} on {config.strategy.evaluator}"
    raise UserError(
        f"--multihost is for the training of one network and for searches of weights and prior together; {what} has "
        "one process: leave it out"
    )


def _check_roles(settings: Overrides, transfers: bool, train: bool) -> None:
    """Raises `UserError` for settings of a target or training that there is none of, or that the target's are."""
    if settings.target and not transfers:
        raise UserError(
            f"--target.{next(iter(settings.target))} is of the target of a transfer; name it: --transfer_to"
        )
    if train and not transfers:
        raise UserError(
            "--train goes on after a transfer, --transfer_to=TARGET; the cell of a finished search is trained by "
            "--config=NAME_train --config.from_run=RUN_DIR"
        )
    if settings.train and not train:
        raise UserError(
            f"--train.{next(iter(settings.train))} is of the training after a transfer; ask for it: --train"
        )
    for key in settings.train:
        if key in _OF_TARGET:
            raise UserError(
                f"--train.{key} means nothing here: what is trained is the target's cell, on the target's images; "
                "leave it out"
            )


def _pass_over_late_callbacks() -> None:
    """Keeps reads and writes that end after Orbax gave up from printing a page each.

    They call back, from threads of TensorStore's, into an event loop that is closed by then.
    """
    before = sys.unraisablehook

    def show(lost: Any) -> None:
        trace = lost.exc_traceback
        late = trace is not None and trace.tb_frame.f_code.co_name == "call_soon_threadsafe"
        if not (late and isinstance(lost.exc_value, RuntimeError)):
            before(lost)

    sys.unraisablehook = show


def _check_platforms() -> None:
    """Raises `UserError` where the environment names a device that JAX does not have."""
    if not os.environ.get("JAX_PLATFORMS"):
        return
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        raise UserError(f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']} cannot be had: {one_line(error)}") from error


def _use_every_core() -> None:
    """Makes a device of each processor core that this process may use, unless the environment says how many.

    Small networks gain nothing from two cores each, but two of them train side by side in the time of one.
    """
    import jax

    if "host_platform_device_count" in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Where JAX has begun already, its devices are what they are.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(cores, _MOST_CORES))


def _entry(job: Any, chosen: str) -> Any:
    """Returns the function that "module:function" names; raises `UserError` where there is none."""
    module, _, function = job.partition(":") if isinstance(job, str) else ("", "", "")
    if not function or not all(part.isidentifier() for part in module.split(".")):
        given = f", not {shown(job)}" if job else ""
        raise UserError(f"config {chosen!r} names no job; its dataclass needs JOB = 'module:function'{given}")
    try:
        entry = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"config {chosen!r} asks for {job}, and there is no module {error.name}") from error
    if not callable(entry):
        raise UserError(f"config {chosen!r} asks for {job}, which does not exist")
    return entry
