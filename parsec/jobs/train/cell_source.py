"""Which network a training trains: the cell that a search found, one given as text or by name, or the plain one."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parsec.cells import SPACES, get_space
from parsec.cells.genotypes import from_text, to_text
from parsec.cells.network import Shape
from parsec.cells.published import PUBLISHED, recognise
from parsec.errors import UserError, shown
from parsec.files import expanded
from parsec.run.workdir import CONFIG, RESULT, read_json
from parsec.settings.train import TrainNetworkSettings
from parsec.train.derived import Blueprint, network_costs
from parsec.train.residual import RESIDUAL, choose_size


class CellSource(NamedTuple):
    """A cell: the key of its space and its text; both "resnet" for the plain network."""

    space: str
    genotype: str


def chosen_cell(from_run: str, genotype: str, base: Path | None = None) -> tuple[CellSource, CellSource]:
    """Returns the cell to be trained, and the one whose size the plain network is to have.

    Args:
      from_run: run directory of a finished search, or empty.
      genotype: a name or text, or empty; with "resnet", `from_run` only says how large it is to be.
      base: a folder from which a relative `from_run` is looked up first, or None.

    Raises:
      UserError: neither or both are given, the run is unfinished or no search, or the genotype is malformed.
    """
    if not from_run and not genotype:
        raise UserError(
            "no cell is given; name a finished search with --config.from_run=RUN_DIR, or a cell with "
            f"--config.genotype=NAME_OR_TEXT, such as {', '.join(PUBLISHED)} or resnet"
        )
    if genotype == RESIDUAL:
        like = cell_of_run(from_run, base=base) if from_run else cell_of_text("DARTS_V2")
        return CellSource(RESIDUAL, RESIDUAL), like
    if from_run and genotype:
        raise UserError("config.from_run and config.genotype both name a cell; leave one of them out")
    cell = cell_of_run(from_run, base=base) if from_run else cell_of_text(genotype)
    return cell, cell


def any_cell(space: str) -> CellSource:
    """Returns a cell of a space, which stands for the one that a search will find."""
    choices = get_space(space)
    return CellSource(space, to_text(choices, np.zeros(len(choices.sizes), np.int32)))


def cell_of_text(text: str) -> CellSource:
    """Returns the cell of a published name or a genotype's text; raises `UserError` where it is neither."""
    space, architecture = recognise(text)
    return CellSource(space.name, to_text(space, architecture))


def cell_of_run(directory: str, setting: str = "config.from_run", base: Path | None = None) -> CellSource:
    """Returns the cell that a finished run found; arguments and errors are those of `cells_of_run`."""
    return cells_of_run(directory, setting, base)[-1]


def cells_of_run(directory: str, setting: str, base: Path | None = None) -> tuple[CellSource, ...]:
    """Returns the cells in the result of a finished run: the found one, or a whole front, which ends with that one.

    Args:
      directory: the run directory.
      setting: what the user named it by, for errors.
      base: a folder from which a relative path is looked up first, and from the current directory after; or None.

    Raises:
      UserError: the directory is no run's, the run has not finished, or its result holds no cell.
    """
    path, where = expanded(directory), f"{setting}={shown(directory)}"
    near = path if base is None else Path(os.path.normpath(base / path))
    path = near if near.is_dir() else path
    if not path.is_dir():
        raise UserError(f"{where}: there is no such directory")
    if not (path / RESULT).is_file():
        if (path / CONFIG).is_file():
            raise UserError(f"{where}: that run has not finished; give its own command again, and it goes on")
        raise UserError(f"{where}: that is no run directory, it holds neither {CONFIG} nor {RESULT}")
    result = read_json(path / RESULT)
    fields = [result.get(name) if isinstance(result, dict) else None for name in ("space", "genotype")]
    space, genotype = fields
    if not isinstance(space, str) or not isinstance(genotype, str):
        raise UserError(f"{where}: its {RESULT} names no cell; give the run directory of a finished search")
    if space == RESIDUAL:
        return (CellSource(RESIDUAL, RESIDUAL),)
    if space not in SPACES:
        raise UserError(
            f"{where}: its cell is of the space {shown(space)}, which is not registered here; "
            "one of your own is known to a config file that imports what registers it (docs/spaces.md)"
        )
    front = result.get("front")
    genotypes = [member["genotype"] for member in front["members"]] if front else [genotype]
    for each in genotypes:
        from_text(SPACES[space], each)
    return tuple(CellSource(space, each) for each in genotypes)


def make_blueprint(
    cell: CellSource, like: CellSource, settings: TrainNetworkSettings, num_classes: int, image: tuple[int, int, int]
) -> Blueprint:
    """Returns the network to be trained.

    Args:
      cell: of `chosen_cell`.
      like: whose number of parameters the plain network is to have.
      settings: of the size.
      num_classes: of the data.
      image: height, width and channels of the images.
    """
    sizes: dict[str, Any] = {"stem_stride": settings.stem_stride, "dtype": settings.dtype, "stem": settings.stem}
    shape = Shape(settings.channels, settings.cells, num_classes, **sizes)
    if cell.space != RESIDUAL:
        return Blueprint(cell.space, cell.genotype, shape)
    params = settings.params
    if not params:
        if like.space == RESIDUAL:
            like = cell_of_text("DARTS_V2")
        params = network_costs(Blueprint(like.space, like.genotype, shape), image).params
    size = choose_size(params, num_classes, image[2])
    return Blueprint(RESIDUAL, RESIDUAL, Shape(size.channels, size.blocks, num_classes, **sizes))
