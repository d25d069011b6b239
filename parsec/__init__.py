"""Neural architecture search for JAX.

The names that a program of one's own needs; each is imported when it is first asked for, so that `import parsec` costs
nothing. Everything else is found in the module that its subject names, such as `parsec.cells.drawing`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parsec.cells import SPACES as SPACES
    from parsec.cells import Space as Space
    from parsec.cells import get_space as get_space
    from parsec.cells.domain import Domain as Domain
    from parsec.cells.domain import product_domain as product_domain
    from parsec.cells.network import Shape as Shape
    from parsec.cells.network import derive as derive
    from parsec.command.config_files import load_config as load_config
    from parsec.errors import UserError as UserError
    from parsec.evaluate.contract import Evaluator as Evaluator
    from parsec.jobs.search.job import run_search as run_search
    from parsec.jobs.tables.compare import run_compare as run_compare
    from parsec.search.contract import Strategy as Strategy
    from parsec.search.registry import STRATEGIES as STRATEGIES
    from parsec.search.registry import make_strategy as make_strategy
    from parsec.settings.compare import CompareConfig as CompareConfig
    from parsec.settings.search import SearchConfig as SearchConfig
    from parsec.tables.table import Table as Table
    from parsec.tables.table import load_table as load_table
    from parsec.tables.table import table_domain as table_domain

__version__ = "0.1.0"

__all__ = [
    "SPACES",
    "STRATEGIES",
    "CompareConfig",
    "Domain",
    "Evaluator",
    "SearchConfig",
    "Shape",
    "Space",
    "Strategy",
    "Table",
    "UserError",
    "__version__",
    "derive",
    "get_space",
    "load_config",
    "load_table",
    "make_strategy",
    "product_domain",
    "run_compare",
    "run_search",
    "table_domain",
]

_HOMES = {
    "SPACES": "parsec.cells",
    "STRATEGIES": "parsec.search.registry",
    "CompareConfig": "parsec.settings.compare",
    "Domain": "parsec.cells.domain",
    "Evaluator": "parsec.evaluate.contract",
    "SearchConfig": "parsec.settings.search",
    "Shape": "parsec.cells.network",
    "Space": "parsec.cells",
    "Strategy": "parsec.search.contract",
    "Table": "parsec.tables.table",
    "UserError": "parsec.errors",
    "derive": "parsec.cells.network",
    "get_space": "parsec.cells",
    "load_config": "parsec.command.config_files",
    "load_table": "parsec.tables.table",
    "make_strategy": "parsec.search.registry",
    "product_domain": "parsec.cells.domain",
    "run_compare": "parsec.jobs.tables.compare",
    "run_search": "parsec.jobs.search.job",
    "table_domain": "parsec.tables.table",
}


def __getattr__(name: str) -> Any:
    """Returns one of the names of `__all__`, imported now."""
    if name not in _HOMES:
        raise AttributeError(f"module 'parsec' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
