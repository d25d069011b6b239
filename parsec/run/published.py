"""Published tables in which a search's cell is looked up: only where space, dataset and table match."""

from parsec.errors import UserError
from parsec.files import expanded
from parsec.run.settings import SearchConfig
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table

# Space -> dataset of a search -> the dataset's name in the published table.
_PUBLISHED = {"nasbench201": {"cifar10": "cifar10", "tfds:cifar10": "cifar10", "cifar100": "cifar100"}}


def open_table(config: SearchConfig) -> Table | None:
    """Returns the published table that the config names, or None where it names none.

    Raises:
      UserError: it is unusable, or has no figures for this space or dataset.
    """
    if not config.table:
        return None
    datasets = _PUBLISHED.get(config.space)
    if datasets is None:
        raise UserError(
            f"config.table={config.table} means nothing in space {config.space}; tables are known of "
            f"{', '.join(_PUBLISHED)}"
        )
    if config.dataset not in datasets:
        raise UserError(
            f"config.table={config.table} has no figures for config.dataset={config.dataset}; it has them for "
            f"{', '.join(datasets)}"
        )
    return load_nasbench201(expanded(config.table), datasets[config.dataset])
