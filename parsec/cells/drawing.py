"""Pictures of cells as SVG, PNG and lines for a terminal; no system binary is needed.

A cell is drawn as the graph it computes, left to right: its inputs, a labelled operation on every edge in the
operation's colour, its nodes under the numbers that genotype texts use, and its output. "none" is dashed and grey, as
it passes nothing on. Equal genotypes give equal SVG, byte for byte.
"""

import itertools
import zlib
from collections.abc import Collection
from pathlib import Path

from parsec.cells.layering import place
from parsec.cells.picture import (
    ARROW_LENGTH,
    FONT_SIZE,
    INK,
    TITLE_SIZE,
    Box,
    Caption,
    Line,
    Picture,
    to_svg,
    write_png,
)
from parsec.cells.space import Cell, Edge, Genotype
from parsec.files import replacing

# One colour an operation, kin in one hue; any other operation takes one of the last by its name.
_COLOURS = {
    "none": "#9aa0a6",
    "skip_connect": "#2e8b57",
    "max_pool_3x3": "#d9480f",
    "avg_pool_3x3": "#e69100",
    "sep_conv_3x3": "#3b82d6",
    "sep_conv_5x5": "#1e3f9c",
    "dil_conv_3x3": "#b04fc7",
    "dil_conv_5x5": "#6b2a91",
    "nor_conv_1x1": "#3b82d6",
    "nor_conv_3x3": "#1e3f9c",
}
_OTHER_COLOURS = ("#0f8b8d", "#c2255c", "#5f7a1f", "#8a5a2b", "#4b5fa8", "#7a6a00")
_WIRE = "#8b949e"
_PILL_HEIGHT, _NODE_SIZE, _MARGIN = 24.0, 30.0, 18.0


def draw_cell(cell: Cell, title: str) -> str:
    """Returns the SVG picture of one cell."""
    return to_svg(_picture(cell, title))


def genotype_svg(genotype: Genotype) -> str:
    """Returns the SVG picture of every cell of a genotype, one below the other."""
    return to_svg(_genotype_picture(genotype))


def draw_genotype(genotype: Genotype, path_svg: Path, path_png: Path) -> None:
    """Writes the picture of a genotype to two files, each replaced whole; folders must exist."""
    picture = _genotype_picture(genotype)
    with replacing(path_svg) as hidden:
        hidden.write_text(to_svg(picture), encoding="utf-8")
    with replacing(path_png) as hidden:
        write_png(picture, hidden)


def text_drawing(genotype: Genotype) -> list[str]:
    """Returns a genotype as lines for a terminal: a column for every node, a row for every operation.

    A row starts at the column of the node that it reads, and the row of the node that it adds to follows.
    """
    lines: list[str] = []
    for kind, cell in genotype.items():
        lines += ["", _title(kind)] if lines else [_title(kind)]
        lines += _text_cell(cell)
    return lines


# Layout.


def _genotype_picture(genotype: Genotype) -> Picture:
    pictures = [_picture(cell, _title(kind)) for kind, cell in genotype.items()]
    width = max(picture.width for picture in pictures)
    stacked = Picture(width, 0.0, [], [], [])
    for picture in pictures:
        down = stacked.height
        lines = [line._replace(points=[(x, y + down) for x, y in line.points]) for line in picture.lines]
        boxes = [box._replace(y=box.y + down) for box in picture.boxes]
        captions = [caption._replace(y=caption.y + down) for caption in picture.captions]
        stacked = Picture(
            width, down + picture.height, stacked.lines + lines, stacked.boxes + boxes, stacked.captions + captions
        )
    return stacked


def _picture(cell: Cell, title: str) -> Picture:
    nodes = cell.num_inputs + cell.num_nodes
    layers = _layers(cell)
    output, first_pill = nodes, nodes + 1
    links: list[tuple[int, int]] = []
    for at, edge in enumerate(cell.edges):
        links += [(edge.source, first_pill + at), (first_pill + at, edge.target)]
    links += [(node, output) for node in cell.concat or (nodes - 1,)]
    boxes = [_node_box(cell, node) for node in range(nodes)]
    boxes.append(_box("output", _NODE_SIZE, INK, INK))
    boxes += [_pill(edge) for edge in cell.edges]

    # Lines into a node are short and steep; a crossing there is harder to follow than one behind the sources.
    costs = [1.0 if layer % 2 == 0 else 2.0 for layer in range(max(layers) + 1)]
    placement = place(layers, links, [box.height for box in boxes], gap=14.0, costs=costs)
    lefts, rights = _columns(layers, boxes, placement.paths)
    top = _MARGIN + TITLE_SIZE + 14.0 + max(box.height for box in boxes) / 2
    boxes = [
        box._replace(x=(lefts[layer] + rights[layer]) / 2, y=top + height)
        for box, layer, height in zip(boxes, layers, placement.heights, strict=True)
    ]
    leaving = _ports([path[0][1] for path in placement.paths], [path[1][1] for path in placement.paths], links, 0)
    arriving = _ports([path[-1][1] for path in placement.paths], [path[-2][1] for path in placement.paths], links, 1)
    lines = []
    for at, (source, target) in enumerate(links):
        start = (boxes[source].x + boxes[source].width / 2, boxes[source].y + leaving[at])
        end = (boxes[target].x - boxes[target].width / 2, boxes[target].y + arriving[at])
        passed = placement.paths[at][1:-1]
        between = [(x, top + height) for layer, height in passed for x in (lefts[layer], rights[layer])]
        pill = max(source, target) - first_pill
        operation = cell.edges[pill].operation if pill >= 0 else ""
        arrow = target < first_pill
        lines.append(Line(_smooth([start, *between, end], arrow), _colour(operation), operation == "none", arrow))
    heights = [y for line in lines for _, y in line.points] + [box.y + box.height / 2 for box in boxes]
    width = max(rights[-1] + _MARGIN, 2 * _MARGIN + _text_width(title, TITLE_SIZE))
    return Picture(width, max(heights) + _MARGIN, lines, boxes, [Caption(_MARGIN, _MARGIN + TITLE_SIZE, title)])


def _layers(cell: Cell) -> list[int]:
    """Returns the layer of every node, of the output and of every operation; operations lie in odd layers."""
    depth = [0] * (cell.num_inputs + cell.num_nodes)
    for node in range(cell.num_inputs, len(depth)):
        depth[node] = 1 + max((depth[edge.source] for edge in cell.edges if edge.target == node), default=0)
    layers = [2 * d for d in depth]
    layers.append(max(layers) + 1)
    for edge in cell.edges:
        middle = (depth[edge.source] + depth[edge.target]) // 2
        layers.append(2 * middle + 1)
    return layers


def _columns(
    layers: list[int], boxes: list[Box], paths: list[list[tuple[int, float]]]
) -> tuple[list[float], list[float]]:
    """Returns the left and right side of every layer; a gap is wider where its lines climb more."""
    count = max(layers) + 1
    widths = [
        max((box.width for box, at in zip(boxes, layers, strict=True) if at == layer), default=0.0)
        for layer in range(count)
    ]
    climbs = [0.0] * count
    for path in paths:
        for (layer, height), (_, following) in itertools.pairwise(path):
            climbs[layer] = max(climbs[layer], abs(following - height))
    lefts, rights, x = [], [], _MARGIN
    for width, climb in zip(widths, climbs, strict=True):
        lefts.append(x)
        rights.append(x + width)
        x += width + min(max(0.45 * climb, 26.0), 84.0)
    return lefts, rights


def _ports(here: list[float], there: list[float], links: list[tuple[int, int]], end: int) -> list[float]:
    """Returns how far from its box's middle each line meets it, so that lines at one side stay apart."""
    offsets = [0.0] * len(links)
    for vertex in {link[end] for link in links}:
        lines = sorted(
            (at for at, link in enumerate(links) if link[end] == vertex), key=lambda at: there[at] - here[at]
        )
        step = min(9.0, (_NODE_SIZE - 10.0) / max(len(lines) - 1, 1))
        for order, at in enumerate(lines):
            offsets[at] = (order - (len(lines) - 1) / 2) * step
    return offsets


def _smooth(corners: list[tuple[float, float]], arrow: bool) -> list[tuple[float, float]]:
    """Returns a line through the corners that is level at each, short of the last by the length of its arrow."""
    if arrow:
        corners = [*corners[:-1], (corners[-1][0] - ARROW_LENGTH, corners[-1][1])]
    points = corners[:1]
    for (x, y), (following_x, following_y) in itertools.pairwise(corners):
        reach = 0.5 * (following_x - x)
        points += [(x + reach, y), (following_x - reach, following_y), (following_x, following_y)]
    return points


def _node_box(cell: Cell, node: int) -> Box:
    if node >= cell.num_inputs:
        return _box(str(node), _NODE_SIZE, "#eaeef2", "#57606a")
    return _box(_input_name(cell, node), _NODE_SIZE, "#d5dbe1", "#57606a")


def _title(kind: str) -> str:
    return kind if kind == "cell" else f"{kind} cell"


def _input_name(cell: Cell, node: int) -> str:
    return f"input k-{cell.num_inputs - node}" if cell.num_inputs > 1 else "input"


def _pill(edge: Edge) -> Box:
    colour = _colour(edge.operation)
    return _box(edge.operation, _PILL_HEIGHT, _tint(colour), colour)


def _box(label: str, height: float, fill: str, stroke: str) -> Box:
    width = max(_text_width(label, FONT_SIZE) + 18.0, height)
    return Box(0.0, 0.0, width, height, min(height, 24.0) / 2 if height < _NODE_SIZE else 8.0, label, fill, stroke)


def _text_width(text: str, size: float) -> float:
    return 0.61 * size * len(text)


def _colour(operation: str) -> str:
    if not operation:
        return _WIRE
    return _COLOURS.get(operation) or _OTHER_COLOURS[zlib.crc32(operation.encode()) % len(_OTHER_COLOURS)]


def _tint(colour: str) -> str:
    channels = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 - 0.16 * (255 - channel)):02x}" for channel in channels)


# Terminal.


def _text_cell(cell: Cell) -> list[str]:
    nodes = cell.num_inputs + cell.num_nodes
    outputs = cell.concat or (nodes - 1,)
    # A node's column is drawn down to the last row that reads it; the output reads after every edge.
    last = {edge.source: at for at, edge in enumerate(cell.edges)} | dict.fromkeys(outputs, len(cell.edges))
    width = max((len(edge.operation) for edge in cell.edges), default=0)

    def node_row(node: int, row: int) -> str:
        return "  " + "".join("│ " if last.get(other, -1) >= row else "  " for other in range(node)) + "●"

    rows = [f"{node_row(node, 0):{2 * nodes + 2}} {_input_name(cell, node)}" for node in range(cell.num_inputs)]
    row = 0
    for node in range(cell.num_inputs, nodes):
        into = [edge for edge in cell.edges if edge.target == node]
        for at, edge in enumerate(into):
            alive = [other for other in range(node) if last.get(other, -1) >= row]
            rail = _rail(nodes, alive, [edge.source] if last[edge.source] == row else [], edge.source)
            label = f"{edge.operation} ".ljust(width + 2, "─")
            rows.append(f"  {rail} {label}{'┐' if at == 0 else '┤'}")
            row += 1
        start = node_row(node, row)
        arrow = f" ◀{'─' * (2 * nodes + width + 3 - len(start))}┘" if into else ""
        rows.append(f"{start}{arrow} {node}")
    return [*rows, f"  {_rail(nodes, outputs, outputs, min(outputs))} output"]


def _rail(nodes: int, alive: Collection[int], ends: Collection[int], source: int) -> str:
    """Returns two characters for every node: the columns that pass or end here, and the line that leaves `source`."""
    rail = ""
    for node in range(nodes):
        down = node in alive and node not in ends
        if node == source:
            rail += "├─" if down else "└─"
        elif node < source:
            rail += "│ " if down else "  "
        else:
            rail += "┼─" if down else "┴─" if node in alive else "──"
    return rail
