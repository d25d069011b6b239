"""report.html: what a search found, on one page that needs no other file and no network.

The page is a function of the run directory's files: result.json, config.json and metrics.jsonl. It holds no clock time,
so equal runs have equal pages.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from parsec.cells import get_space
from parsec.cells.drawing import genotype_svg
from parsec.cells.genotypes import from_text
from parsec.report.curves import line_chart
from parsec.report.ranking import ranking_words

# What a search records, in the order of the page; whatever else it recorded follows under its own name.
_TITLES = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "entropy": "entropy of the prior (nats)",
    "ess": "effective sample size",
    "mode_skip": "share of skips and zeros in the prior's mode",
    "mode_pool": "share of pools in the prior's mode",
}
# What is drawn dashed behind a curve, and its name.
_REFERENCES = {
    "entropy": ("control_entropy", "where likelihoods say nothing"),
    "ess": ("num_children", "children"),
}
_MOST_CURVES = 16
_STYLE = """
body { font: 15px/1.5 "DejaVu Sans", Verdana, Helvetica, Arial, sans-serif; color: #24292f }
body { background: #f4f6f8; margin: 0 }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 25px; margin: 0 0 2px } h2 { font-size: 18px; margin: 34px 0 10px } .lead { color: #57606a; margin: 0 }
section, .figures > div { background: #fff; border: 1px solid #dde2e7; border-radius: 8px; padding: 14px 18px }
section { overflow-x: auto } .curves { display: flex; flex-wrap: wrap; gap: 8px }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 22px 0 } .figures > div { flex: 1 1 150px }
.figures b { display: block; font-size: 24px } .figures span { color: #57606a; font-size: 13px }
.warning { border-left: 5px solid #e69100; margin: 8px 0 }
.verdict { border-left: 5px solid #0072b2; margin: 18px 0 0 }
table { border-collapse: collapse } td, th { padding: 3px 18px 3px 0; text-align: left; vertical-align: top }
th { color: #57606a; font-weight: normal }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 13px }
svg { max-width: 100%; height: auto }
"""


def report_page(result: Mapping[str, Any], config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page of a search.

    Args:
      result: of result.json; accuracies in percent.
      config: of config.json.
      metrics: the lines of metrics.jsonl, in order.

    Raises:
      UserError: the genotype is not one of the space.
    """
    space = get_space(result["space"])
    genotype = space.decode(from_text(space, result["genotype"]))
    title = f"A cell of {space.name}"
    steps = f", {metrics[-1]['step']:,} steps" if metrics else ""
    lead = f"{config.get('job', 'search')}, seed {result['seed']}{steps}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(lead)}</p>',
        *(
            f'<section class="warning"><b>Warning.</b> {escape(str(line))}</section>'
            for line in result.get("warnings") or ()
        ),
        *_verdict(result),
        _figures(result),
        f"<section>{genotype_svg(genotype)}</section>",
    ]
    if result.get("front"):
        body += ["<h2>The front</h2>", _table(_members(result["front"]))]
    if result.get("table"):
        body += ["<h2>The cell in the benchmark's table</h2>", _table(_flat(result["table"]))]
    ranks = ranking_words(result.get("rank_correlation") or {})
    if ranks:
        body += ["<h2>How the search's scores rank the table's cells (Spearman)</h2>", _table(ranks)]
    body += ["<h2>How to use it</h2>", f"<section><pre>{escape(usage(result))}</pre></section>"]
    if metrics:
        body += ["<h2>The search</h2>", f'<section class="curves">{"".join(_curves(metrics))}</section>']
    body += [
        "<h2>Architecture</h2>",
        _table(
            {choice.name: choice.options[at] for choice, at in zip(space.choices, result["architecture"], strict=True)}
        ),
        "<h2>Configuration</h2>",
        _table(_flat(config.get("config") or result.get("config") or {})),
        "<h2>Made with</h2>",
        _table(_flat({key: config[key] for key in ("versions", "device") if key in config})),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head>{head}<style>{_STYLE}</style></head>',
            "<body><main>",
            *body,
            "</main></body></html>\n",
        ]
    )


def usage(result: Mapping[str, Any]) -> str:
    """Returns a program that builds the found network, at the searched size until its reader changes that."""
    size = result["config"]["network"]
    return f"""from parsec.cells import get_space
from parsec.cells.genotypes import from_text
from parsec.cells.network import Shape, derive

space = get_space({result["space"]!r})
architecture = from_text(space, {result["genotype"]!r})
# The size of the search; a network to train at length wants more channels and cells, and a stem of stride 1.
shape = Shape({size["channels"]}, {size["cells"]}, {result["num_classes"]}, stem_stride={size["stem_stride"]})
network = derive(space, space.decode(architecture), shape)  # a Flax module
"""


def _members(front: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rows of a front's table, each under its genotype."""
    return {
        member[
            "genotype"
        ]: f"{_percent(member['accuracy'])}, {member['params']:,} parameters, {member['flops']:,} FLOPs"
        for member in front["members"]
    }


def _verdict(result: Mapping[str, Any]) -> list[str]:
    """Returns the box of what trainings from scratch say, where there were any."""
    retrained = result.get("retrained")
    if not retrained:
        return []
    return [f'<section class="verdict"><b>Verdict.</b> {escape(retrained["sentence"])}.</section>']


def _figures(result: Mapping[str, Any]) -> str:
    retrained = result.get("retrained")
    if retrained:
        how = f"{retrained['seeds']} seeds of {retrained['steps']:,} steps from scratch"
        figures = [
            (_percent(retrained["found"]), f"test accuracy, {how}"),
            (_percent(retrained["random_mean"]), f"mean of {retrained['random_cells']} random cells, trained alike"),
            (_percent(retrained["residual"]), "plain residual network of about as many parameters, trained alike"),
        ]
    else:
        how, likewise = {"train": ("trained from scratch", "trained alike"), "table": ("in the table", "likewise")}.get(
            result.get("evaluator", ""), ("under the shared weights", "likewise")
        )
        figures = [
            (_percent(result["valid_accuracy"]), f"validation accuracy {how}"),
            (_percent(result["random_valid_accuracy"]), f"mean of random children, {likewise}"),
        ]
    figures += [
        (_count(result["params"]), "parameters at the searched size"),
        (_count(result["flops"]), "FLOPs at the searched size (multiply-adds for one image)"),
    ]
    boxes = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in figures)
    return f'<div class="figures">{boxes}</div>'


def _curves(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for line in metrics for name, value in line.items() if _is_number(value))
    drawn = [name for name in _TITLES if name in names]
    behind = {reference for reference, _ in _REFERENCES.values()}
    drawn += [name for name in names if name not in (*_TITLES, *behind, "step")]
    charts = []
    for name in drawn[:_MOST_CURVES]:
        # A metric that is measured now and then has points at its own steps only.
        lines = [line for line in metrics if name in line]
        reference, meaning = _REFERENCES.get(name, ("", ""))
        values = [_number(line.get(reference)) for line in lines]
        known = any(value is not None for value in values)
        charts.append(
            line_chart(
                _TITLES.get(name, name.replace("_", " ")),
                [line["step"] for line in lines],
                [_number(line[name]) for line in lines],
                reference=values if known else None,
                reference_name=meaning if known else "",
            )
        )
    return charts


def _table(rows: Mapping[str, Any]) -> str:
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(_text(value))}</td></tr>" for name, value in rows.items())
    return f"<section><table>{cells}</table></section>"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, entry in value.items():
        rows |= _flat(entry, f"{prefix}{name}.") if isinstance(entry, Mapping) else {f"{prefix}{name}": entry}
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    return float(value) if _is_number(value) else None


def _percent(value: Any) -> str:
    return f"{value:.2f} %" if _is_number(value) and math.isfinite(value) else "not measured"


def _count(value: Any) -> str:
    if not _is_number(value):
        return "not counted"
    return f"{value / 1e6:,.3f} M" if value >= 1e5 else f"{value:,}"


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
