"""Shapes of a picture, and the picture as SVG or PNG; both show the same.

The SVG is written by hand and the PNG by matplotlib's Agg backend, so neither needs a system binary or a display.
"""

from html import escape
from pathlib import Path
from typing import NamedTuple

INK = "#24292f"
FONT_SIZE, TITLE_SIZE = 12.0, 15.0
ARROW_LENGTH = 7.0


class Box(NamedTuple):
    """A labelled rounded rectangle: its centre, size, corner radius and colours, all lengths in pixels."""

    x: float
    y: float
    width: float
    height: float
    radius: float
    label: str
    fill: str
    stroke: str


class Line(NamedTuple):
    """A smooth line: a first point, then three points for each cubic Bezier curve; it ends in an arrow, level."""

    points: list[tuple[float, float]]
    colour: str
    dashed: bool
    arrow: bool


class Caption(NamedTuple):
    """A title, left-aligned; y is its baseline."""

    x: float
    y: float
    text: str


class Picture(NamedTuple):
    """Shapes in a frame of the given size in pixels."""

    width: float
    height: float
    lines: list[Line]
    boxes: list[Box]
    captions: list[Caption]


def to_svg(picture: Picture) -> str:
    """Returns the picture as an SVG document, the same text for the same picture."""
    width, height = _number(picture.width), _number(picture.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif" font-size="{_number(FONT_SIZE)}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for line in picture.lines:
        (start, *rest) = [f"{_number(x)} {_number(y)}" for x, y in line.points]
        path = f"M{start} C{' '.join(rest)}"
        dashes = ' stroke-dasharray="4 4"' if line.dashed else ""
        parts.append(f'<path d="{path}" fill="none" stroke="#ffffff" stroke-width="4.5"/>')
        parts.append(f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="1.8"{dashes}/>')
        if line.arrow:
            corners = " ".join(f"{_number(x)},{_number(y)}" for x, y in _arrow_head(line))
            parts.append(f'<polygon points="{corners}" fill="{line.colour}"/>')
    for box in picture.boxes:
        left, top = _number(box.x - box.width / 2), _number(box.y - box.height / 2)
        parts.append(
            f'<rect x="{left}" y="{top}" width="{_number(box.width)}" height="{_number(box.height)}"'
            f' rx="{_number(box.radius)}" fill="{box.fill}" stroke="{box.stroke}" stroke-width="1.3"/>'
        )
        parts.append(
            f'<text x="{_number(box.x)}" y="{_number(box.y + 0.35 * FONT_SIZE)}" text-anchor="middle"'
            f' fill="{_label_colour(box)}">{escape(box.label)}</text>'
        )
    for caption in picture.captions:
        parts.append(
            f'<text x="{_number(caption.x)}" y="{_number(caption.y)}" font-size="{_number(TITLE_SIZE)}"'
            f' font-weight="bold" fill="{INK}">{escape(caption.text)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def write_png(picture: Picture, path: Path) -> None:
    """Writes the picture to a PNG file of two pixels for each of the SVG's, replacing what is there."""
    # Imported here: a quarter of a second that a search need not wait for before its first step.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve

    # 72 points an inch make a point a pixel of the SVG; twice that many pixels stay sharp on a dense screen.
    figure = Figure(figsize=(picture.width / 72, picture.height / 72), dpi=144, facecolor="#ffffff")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, picture.width)
    axes.set_ylim(picture.height, 0)
    order = 1.0
    for line in picture.lines:
        curve = Curve(line.points, [Curve.MOVETO, *[Curve.CURVE4] * (len(line.points) - 1)])
        axes.add_patch(PathPatch(curve, fill=False, edgecolor="#ffffff", linewidth=4.5, zorder=order))
        dashes = (0, (2.2, 2.2)) if line.dashed else "solid"
        axes.add_patch(
            PathPatch(curve, fill=False, edgecolor=line.colour, linewidth=1.8, linestyle=dashes, zorder=order)
        )
        if line.arrow:
            axes.add_patch(Polygon(_arrow_head(line), facecolor=line.colour, edgecolor="none", zorder=order))
        order += 1.0
    for box in picture.boxes:
        corner = (box.x - box.width / 2, box.y - box.height / 2)
        rounded = f"round,pad=0,rounding_size={box.radius}"
        axes.add_patch(
            FancyBboxPatch(
                corner,
                box.width,
                box.height,
                rounded,
                facecolor=box.fill,
                edgecolor=box.stroke,
                linewidth=1.3,
                zorder=order,
            )
        )
        colour = _label_colour(box)
        axes.text(
            box.x,
            box.y + 0.35 * FONT_SIZE,
            box.label,
            ha="center",
            va="baseline",
            fontsize=FONT_SIZE,
            zorder=order,
            family="DejaVu Sans",
            color=colour,
        )
    for caption in picture.captions:
        axes.text(
            caption.x,
            caption.y,
            caption.text,
            va="baseline",
            fontsize=TITLE_SIZE,
            weight="bold",
            family="DejaVu Sans",
            color=INK,
        )
    figure.savefig(path, format="png", metadata={"Software": None})


def _label_colour(box: Box) -> str:
    return "#ffffff" if box.fill == INK else INK


def _arrow_head(line: Line) -> list[tuple[float, float]]:
    x, y = line.points[-1]
    return [(x, y - 3.8), (x + ARROW_LENGTH, y), (x, y + 3.8)]


def _number(value: float) -> str:
    """Returns one decimal at most, so that the last bits of arithmetic never change a file."""
    rounded = round(value, 1) + 0.0  # never "-0"
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)
