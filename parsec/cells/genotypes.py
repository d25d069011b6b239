"""Architectures as text, both ways: the DARTS `Genotype(...)`, the NAS-Bench-201 cell string, and JSON.

The DARTS text is the one printed by Liu et al., "DARTS: Differentiable Architecture Search" (ICLR 2019); the cell
string is that of Dong and Yang, "NAS-Bench-201" (ICLR 2020). JSON says the same for any space, and `from_text` reads
it wherever it reads a text.

Which text belongs to a space follows from the layout of its cells, so that a new space of either form needs nothing
here: slots that choose their source are written in the DARTS way, a complete graph with fixed sources in the
NAS-Bench-201 way, anything else as JSON. Texts are parsed, never evaluated.
"""

import ast
import json
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from parsec.cells.space import Cell, CellLayout, Edge, Genotype, Space
from parsec.errors import UserError, unknown


class TextFormat(NamedTuple):
    """One way to write the genotypes of some spaces.

    Attributes:
      name: what a person calls it; opens every error about a malformed text.
      fits: whether the space's layouts can be written this way.
      write: the text of a genotype.
      read: the genotype of a text, its edges in slot order; raises `UserError` where the text is malformed.
    """

    name: str
    fits: Callable[[Space], bool]
    write: Callable[[Genotype], str]
    read: Callable[[Space, str], Genotype]


# Longest text looked at, and the largest node number in it: far above any cell, far below what could exhaust memory.
_LONGEST_TEXT = 20_000
_LARGEST_NODE = 9_999


def to_text(space: Space, architecture: Sequence[int] | np.ndarray) -> str:
    """Returns the text of an architecture, int32 [L], in the form its field knows it by.

    Raises:
      UserError: the architecture is not one of this space.
    """
    return text_format(space).write(space.decode(architecture))


def from_text(space: Space, text: str) -> np.ndarray:
    """Returns the architecture int32 [L] that a text describes; JSON is read for every space.

    Raises:
      UserError: the text is malformed, names an unknown operation, or describes no architecture of this space.
    """
    if len(text) > _LONGEST_TEXT:
        raise UserError(f"a genotype of {len(text):,} characters; at most {_LONGEST_TEXT:,} are read")
    as_json = text.lstrip().startswith("{")
    genotype = from_json(text) if as_json else text_format(space).read(space, text)
    _check_cells(space, genotype)
    return space.encode(genotype)


def text_format(space: Space) -> TextFormat:
    """Returns the text format of a space: the first of `FORMATS` that fits its layouts."""
    return next(form for form in FORMATS if form.fits(space))


def to_json(genotype: Genotype) -> str:
    """Returns a genotype as one line of JSON; an edge is written [operation, source, target]."""
    return json.dumps(
        {
            kind: {
                "num_inputs": cell.num_inputs,
                "num_nodes": cell.num_nodes,
                "edges": [[edge.operation, edge.source, edge.target] for edge in cell.edges],
                "concat": list(cell.concat),
            }
            for kind, cell in genotype.items()
        }
    )


def from_json(text: str) -> Genotype:
    """Returns the genotype written by `to_json`; needs no space.

    Raises:
      UserError: the text is not JSON, or an entry is missing or of the wrong kind; the message says which.
    """
    try:
        cells = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"genotype JSON, line {error.lineno} column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError):
        raise UserError("genotype JSON: nested too deeply or a number is too long") from None
    if not isinstance(cells, dict) or not cells:
        raise UserError("genotype JSON: expected an object with one entry for each kind of cell")
    return {kind: _cell_from_json(kind, cell) for kind, cell in cells.items()}


def _check_cells(space: Space, genotype: Genotype) -> None:
    for kind, cell in genotype.items():
        if kind not in space.cells:
            raise unknown("kind of cell", _shortened(kind), space.cells)
        layout = space.cells[kind]
        if (cell.num_inputs, cell.num_nodes) != (layout.num_inputs, layout.num_nodes):
            raise UserError(
                f"the {kind} cell has {cell.num_inputs} inputs and {cell.num_nodes} nodes; "
                f"{space.name} has {layout.num_inputs} and {layout.num_nodes}"
            )
        if cell.concat != layout.concat:
            raise UserError(f"the {kind} cell concatenates {list(cell.concat)}; {space.name} {list(layout.concat)}")
        for edge in cell.edges:
            if edge.operation not in space.operations:
                raise unknown("operation", _shortened(edge.operation), space.operations)


# The DARTS text.


def _chooses_sources(space: Space) -> bool:
    return all(slot.source_choice >= 0 for layout in space.cells.values() for slot in layout.slots)


def _write_darts(genotype: Genotype) -> str:
    fields = []
    for kind, cell in genotype.items():
        pairs = ", ".join(f"({edge.operation!r}, {edge.source})" for edge in cell.edges)
        fields += [f"{kind}=[{pairs}]", f"{kind}_concat={_write_concat(cell.concat)}"]
    return f"Genotype({', '.join(fields)})"


def _write_concat(nodes: tuple[int, ...]) -> str:
    if len(nodes) > 1 and nodes == tuple(range(min(nodes), max(nodes) + 1)):
        return f"range({min(nodes)}, {max(nodes) + 1})"
    return str(list(nodes))


def _read_darts(space: Space, text: str) -> Genotype:
    call = _genotype_call(text)
    expected = [name for kind in space.cells for name in (kind, f"{kind}_concat")]
    given: dict[str, ast.expr] = {}
    for keyword in call.keywords:
        if keyword.arg not in expected:
            raise unknown("field of Genotype", _shortened(keyword.arg or "**"), expected)
        if keyword.arg in given:
            raise _darts_error(keyword, f"{keyword.arg} is given twice")
        given[keyword.arg] = keyword.value
    missing = [name for name in expected if name not in given]
    if missing:
        raise UserError(f"DARTS genotype: {missing[0]} is missing; it needs {', '.join(expected)}")
    return {kind: _darts_cell(space, kind, given[kind], _concat(given[f"{kind}_concat"])) for kind in space.cells}


def _genotype_call(text: str) -> ast.Call:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stray backslash in a string is no business of the interpreter's user
            body = ast.parse(text.strip()).body
    except SyntaxError as error:
        raise UserError(f"DARTS genotype, line {error.lineno or 1} column {error.offset or 1}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError):
        raise UserError("DARTS genotype: a null character, or nested too deeply") from None
    value = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr | ast.Assign) else None
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Genotype"):
        raise UserError(f"DARTS genotype: expected Genotype(normal=[...], ...), not {_shown(text.strip())}")
    if value.args:
        raise _darts_error(value.args[0], "the fields of Genotype are given by name")
    return value


def _darts_cell(space: Space, kind: str, node: ast.expr, concat: tuple[int, ...]) -> Cell:
    layout = space.cells[kind]
    pairs = _sequence(node, f"{kind} is a list of (operation, source) pairs")
    if len(pairs) != len(layout.slots):
        raise _darts_error(node, f"{kind} has {len(pairs)} pairs; {space.name} needs {len(layout.slots)}")
    edges = []
    for pair, slot in zip(pairs, layout.slots, strict=True):
        complaint = "expected a pair ('operation', source)"
        entries = _sequence(pair, complaint)
        operation = entries[0].value if entries and isinstance(entries[0], ast.Constant) else None
        if len(entries) != 2 or not isinstance(operation, str):
            raise _darts_error(pair, complaint)
        if operation not in space.operations:
            raise _darts_error(pair, str(unknown("operation", _shortened(operation), space.operations)))
        source = _node(entries[1])
        if source >= slot.target:
            raise _darts_error(pair, f"node {slot.target} can read nodes 0 to {slot.target - 1}, not {source}")
        edges.append(Edge(source, slot.target, operation))
    return Cell(layout.num_inputs, layout.num_nodes, tuple(edges), concat)


def _concat(node: ast.expr) -> tuple[int, ...]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds = [_node(bound) for bound in node.args]
        if node.keywords or len(bounds) not in (1, 2):
            raise _darts_error(node, "expected range(first, last + 1)")
        return tuple(range(*bounds))
    return tuple(_node(entry) for entry in _sequence(node, "a concat is a list of nodes or range(first, last + 1)"))


def _sequence(node: ast.expr, complaint: str) -> list[ast.expr]:
    if not isinstance(node, ast.List | ast.Tuple):
        raise _darts_error(node, complaint)
    return node.elts


def _node(node: ast.expr) -> int:
    number = node.value if isinstance(node, ast.Constant) else None
    if type(number) is not int or number > _LARGEST_NODE:
        raise _darts_error(node, "expected the number of a node")
    return number


def _darts_error(node: ast.expr | ast.keyword, message: str) -> UserError:
    return UserError(f"DARTS genotype, line {node.lineno} column {node.col_offset + 1}: {message}")


# The NAS-Bench-201 string.


def _is_complete_graph(space: Space) -> bool:
    layouts = list(space.cells.values())
    return len(layouts) == 1 and layouts[0].num_inputs == 1 and _edges(layouts[0]) == _complete(layouts[0])


def _edges(layout: CellLayout) -> list[tuple[int, int]]:
    return [(slot.source, slot.target) for slot in layout.slots]


def _complete(layout: CellLayout) -> list[tuple[int, int]]:
    return [(source, target) for target in range(1, layout.num_nodes + 1) for source in range(target)]


def _write_cell_string(genotype: Genotype) -> str:
    (cell,) = genotype.values()
    into = [[edge for edge in cell.edges if edge.target == node + 1] for node in range(cell.num_nodes)]
    return "+".join("|" + "|".join(f"{edge.operation}~{edge.source}" for edge in edges) + "|" for edges in into)


def _read_cell_string(space: Space, text: str) -> Genotype:
    ((kind, layout),) = space.cells.items()
    groups = list(re.finditer(r"[^+]+", re.sub(r"\s", "", text)))
    if len(groups) != layout.num_nodes:
        raise UserError(
            f"NAS-Bench-201 string: {len(groups)} nodes joined by '+' in {_shown(text)}; "
            f"{space.name} has {layout.num_nodes}"
        )
    edges = []
    for node, group in enumerate(groups, 1):
        entries = group.group().strip("|").split("|")
        where = f"NAS-Bench-201 string, node {node}"
        if not (group.group().startswith("|") and group.group().endswith("|")) or len(entries) != node:
            raise UserError(f"{where}: expected {_pattern(node)!r}, not {_shown(group.group())}")
        for source, entry in enumerate(entries):
            operation, tilde, number = entry.partition("~")
            if not tilde or number != str(source):
                raise UserError(f"{where}, edge {source + 1}: expected 'operation~{source}', not {_shown(entry)}")
            if operation not in space.operations:
                named = unknown("operation", _shortened(operation), space.operations)
                raise UserError(f"{where}, edge {source + 1}: {named}")
            edges.append(Edge(source, node, operation))
    return {kind: Cell(layout.num_inputs, layout.num_nodes, tuple(edges), layout.concat)}


def _pattern(node: int) -> str:
    return "|" + "|".join(f"operation~{source}" for source in range(node)) + "|"


# JSON.


def _cell_from_json(kind: str, cell: Any) -> Cell:
    where = f"genotype JSON, cell {_shown(kind)}"
    keys = ("num_inputs", "num_nodes", "edges", "concat")
    if not isinstance(cell, dict) or set(cell) != set(keys):
        raise UserError(f"{where}: expected an object with {', '.join(keys)}")
    if not (_is_node(cell["num_inputs"]) and _is_node(cell["num_nodes"])):
        raise UserError(f"{where}: num_inputs and num_nodes are whole numbers")
    num_nodes = cell["num_inputs"] + cell["num_nodes"]
    if not isinstance(cell["concat"], list) or not all(_is_node(n) and n < num_nodes for n in cell["concat"]):
        raise UserError(f"{where}: concat is a list of nodes below {num_nodes}")
    if not isinstance(cell["edges"], list):
        raise UserError(f"{where}: edges is a list of [operation, source, target]")
    edges = []
    for at, edge in enumerate(cell["edges"]):
        match edge:
            case [str(operation), int(source), int(target)] if _is_node(source) and source < target < num_nodes:
                edges.append(Edge(source, target, operation))
            case _:
                raise UserError(f"{where}, edge {at}: expected [operation, source, target], nodes below {num_nodes}")
    return Cell(cell["num_inputs"], cell["num_nodes"], tuple(edges), tuple(cell["concat"]))


def _is_node(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_NODE


def _shown(text: str) -> str:
    """Returns a piece of a user's text, quoted, on one line."""
    return repr(_shortened(text))


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


# In order of preference; the last fits every space.
FORMATS: tuple[TextFormat, ...] = (
    TextFormat("NAS-Bench-201 string", _is_complete_graph, _write_cell_string, _read_cell_string),
    TextFormat("DARTS genotype", _chooses_sources, _write_darts, _read_darts),
    TextFormat("JSON", lambda space: True, to_json, lambda space, text: from_json(text)),
)
