"""How a job opens: a finished run is reported, any other is claimed and announced.

Between the two a job loads and checks all that it needs, so that whoever starts it in error is left with an untouched
run directory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parsec.errors import UserError
from parsec.run.progress import announce
from parsec.run.workdir import RESULT, Claim, claim, finished_result, locate


def report_finished(config: Any, workdir: Path, show: Callable[[Any, Path], None]) -> Any | None:
    """Returns what result.json holds where a run of this config is finished, having shown it; else None.

    Args:
      config: the job's config dataclass.
      workdir: the run directory.
      show: prints a result; `show(result, path)`.

    Raises:
      UserError: as of `finished_result`, or for a result that is read back and lacks what a result has.
    """
    path = locate(workdir)
    result = finished_result(path, config)
    if result is None:
        return None
    print(f"finished before, in {path}:")
    try:
        show(result, path)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"{path / RESULT} is not a result of this job ({type(error).__name__}: {error}); remove it and give the "
            "same command to have it written again"
        ) from error
    return result


@contextmanager
def begin(
    config: Any,
    workdir: Path,
    digests: Mapping[str, str],
    title: str,
    plan: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Iterator[Claim]:
    """Claims a run directory, says what the job will do there, and holds the directory until the end.

    Args:
      config: the job's config dataclass.
      workdir: the run directory.
      digests: as of `claim`.
      title: of the plan.
      plan: name -> value; the run directory is added.
      notes: lines to show besides those of the claim.

    Raises:
      UserError: as of `claim`.
    """
    with claim(workdir, config, digests) as run:
        announce(title, {**plan, "run directory": run.path})
        for note in (*run.notes, *notes):
            print(note)
        yield run
