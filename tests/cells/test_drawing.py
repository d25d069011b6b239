"""Pictures of cells: a golden SVG, legibility checked by geometry, PNG files, and the terminal's lines."""

import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parsec.cells import DARTS, NASBENCH201, Cell, Edge, Genotype
from parsec.cells.drawing import draw_cell, draw_genotype, genotype_svg, text_drawing
from parsec.cells.genotypes import from_text
from parsec.cells.layering import place

GOLDEN = Path(__file__).parent / "golden_cell.svg"
BEST_201 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
SVG = "{http://www.w3.org/2000/svg}"


def _best() -> Genotype:
    return NASBENCH201.decode(from_text(NASBENCH201, BEST_201))


def _random_genotype(seed: int) -> Genotype:
    return DARTS.decode(np.random.default_rng(seed).integers(0, DARTS.sizes))


def test_golden_svg() -> None:
    # After an intended change, write draw_cell(...) of the same cell over the golden file and look at the picture.
    assert draw_cell(_best()["cell"], "NAS-Bench-201") == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", range(6))
def test_every_operation_is_labelled_and_no_box_covers_another(seed: int) -> None:
    genotype = _random_genotype(seed)
    root = ElementTree.fromstring(genotype_svg(genotype))
    labels = [text.text for text in root.iter(SVG + "text")]
    for kind, cell in genotype.items():
        assert f"{kind} cell" in labels
        for edge in cell.edges:
            assert labels.count(edge.operation) == sum(
                other.operation == edge.operation for each in genotype.values() for other in each.edges
            )
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [
        tuple(float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        for box in root.iter(SVG + "rect")
        if "x" in box.attrib
    ]
    # Each cell: 8 operations, 2 inputs, 4 nodes and the output.
    assert len(boxes) == 2 * 15
    for x, y, w, h in boxes:
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
    for (x, y, w, h), (x2, y2, w2, h2) in itertools.combinations(boxes, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


@pytest.mark.parametrize("seed", range(6))
def test_no_line_runs_through_a_box(seed: int) -> None:
    root = ElementTree.fromstring(draw_cell(_random_genotype(seed)["normal"], "cell"))
    boxes = np.array(
        [
            [float(b.attrib[n]) for n in ("x", "y", "width", "height")]
            for b in root.iter(SVG + "rect")
            if "x" in b.attrib
        ]
    )
    for path in root.iter(SVG + "path"):
        points = np.array([float(n) for n in path.attrib["d"].replace("M", "").replace("C", "").split()]).reshape(-1, 2)
        along = np.concatenate([_bezier(points[at : at + 4]) for at in range(0, len(points) - 1, 3)])
        inside = (
            (along[:, None] > boxes[:, :2] + 1.0) & (along[:, None] < boxes[:, :2] + boxes[:, 2:] - 1.0)
        ).all(-1)  # fmt: skip
        assert not inside.any()


def _bezier(points: np.ndarray) -> np.ndarray:
    """Returns 40 points [40, 2] of the cubic Bezier curve with the control points [4, 2]."""
    t = np.linspace(0, 1, 40)[:, None]
    basis = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
    return np.sum([b * point for b, point in zip(basis, points, strict=True)], axis=0)


def test_operations_have_their_own_colours_and_none_is_dashed() -> None:
    svg = draw_cell(_best()["cell"], "cell")
    assert svg.count("stroke-dasharray") == 2  # to the operation and from it
    strokes = {
        operation: draw_cell(Cell(1, 1, (Edge(0, 1, operation),)), "cell")
        .split('<path d="')[2]
        .split('stroke="')[1][:7]
        for operation in DARTS.operations
    }
    assert len(set(strokes.values())) == len(strokes)


def test_a_cell_without_edges_is_drawn() -> None:
    labels = [
        text.text for text in ElementTree.fromstring(draw_cell(Cell(2, 2, (), (2, 3)), "empty")).iter(SVG + "text")
    ]
    assert labels == ["input k-2", "input k-1", "2", "3", "output", "empty"]
    assert text_drawing({"cell": Cell(1, 1, ())})[-1].split() == ["└─", "output"]


def test_names_are_escaped() -> None:
    svg = draw_cell(Cell(1, 1, (Edge(0, 1, 'my<op>&"'),)), "a < b")
    labels = [text.text for text in ElementTree.fromstring(svg).iter(SVG + "text")]
    assert 'my<op>&"' in labels
    assert "a < b" in labels


def test_files_show_the_same_picture_and_do_not_change(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        draw_genotype(_best(), folder / "cell.svg", folder / "cell.png")
    for name in ("cell.svg", "cell.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    root = ElementTree.parse(first / "cell.svg").getroot()
    with Image.open(first / "cell.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    # Two pixels a unit, and ink in every operation's box.
    assert abs(pixels.shape[1] - 2 * float(root.attrib["width"])) <= 2
    assert abs(pixels.shape[0] - 2 * float(root.attrib["height"])) <= 2
    for box in root.iter(SVG + "rect"):
        if "x" in box.attrib:
            x, y, w, h = (int(2 * float(box.attrib[name])) for name in ("x", "y", "width", "height"))
            assert np.ptp(pixels[y + 8 : y + h - 8, x + 8 : x + w - 8].astype(int)) > 100


def test_terminal_lines() -> None:
    assert [line.rstrip() for line in text_drawing(_best())] == [
        "cell",
        "  ●        input",
        "  ├─────── nor_conv_3x3 ─┐",
        "  │ ● ◀──────────────────┘ 1",
        "  ├─┼───── nor_conv_3x3 ─┐",
        "  │ ├───── nor_conv_3x3 ─┤",
        "  │ │ ● ◀────────────────┘ 2",
        "  └─┼─┼─── skip_connect ─┐",
        "    └─┼─── none ─────────┤",
        "      └─── nor_conv_3x3 ─┤",
        "        ● ◀──────────────┘ 3",
        "        └─ output",
    ]


@pytest.mark.parametrize("seed", range(4))
def test_terminal_rows_name_every_operation_and_stay_narrow(seed: int) -> None:
    genotype = _random_genotype(seed)
    lines = text_drawing(genotype)
    operations = [edge.operation for cell in genotype.values() for edge in cell.edges]
    shown = [word for line in lines for word in line.split() if word in DARTS.operations]
    assert shown == operations
    assert max(map(len, lines)) < 60


def test_placement_untangles_what_can_be_untangled() -> None:
    # Three parallel lines given upside down at the far end, and one line that spans the middle layer.
    placement = place(
        [0, 0, 0, 1, 1, 2, 2, 2],
        [(0, 4), (1, 3), (4, 7), (3, 6), (2, 5)],
        [10.0] * 8,
        gap=5.0,
        costs=[1.0, 1.0, 1.0],
    )
    order = {vertex: height for vertex, height in enumerate(placement.heights)}
    starts = sorted((0, 1, 2), key=order.__getitem__)
    ends = sorted((5, 6, 7), key=order.__getitem__)
    assert [{0: 7, 1: 6, 2: 5}[start] for start in starts] == ends
    assert min(abs(order[a] - order[b]) for a, b in itertools.combinations((0, 1, 2), 2)) >= 15.0 - 1e-6
    assert len(placement.paths[4]) == 3
    assert min(placement.heights) == 0.0
