"""LaNAS: learn which half of the space is better, again and again, and search where the halves say.

Wang, Xie, Li, Fonseca and Tian, "Sample-Efficient Neural Architecture Search by Learning Actions" (TPAMI 2022, arXiv
1906.06832). Evaluated architectures fit a tree of regressions (`tree`); UCB walks to a leaf; an architecture inside all
half-spaces of the path is proposed (`sampling`); after `select` evaluations the tree is learnt afresh.

Three things are settings here that the paper fixes, because each was measured to matter (`python -m benchmarks.lanas`):
what a regression predicts (the score, or a function of its rank among those known, which broken networks do not
stretch), what it is linear in (the features, or their pairwise products too), and which member of the leaf is proposed
(any, or the one that a regression ranks first). The presets `paper` and `released` keep the published choices.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import jax
import numpy as np

from parsec.cells.domain import ArrayLike, Domain
from parsec.errors import UserError, unknown
from parsec.search.contract import Info, Strategy
from parsec.search.lanas.archive import (
    Archive,
    empty_archive,
    first_scores,
    host_rng,
    propose,
    rank_correlation,
    record,
    succeeded,
    taken,
    to_values,
)
from parsec.search.lanas.encoding import linear_margin, make_encoding
from parsec.search.lanas.sampling import draw_anywhere, draw_with_fallback, make_sampler
from parsec.search.lanas.tree import (
    Tree,
    empty_tree,
    expert_of,
    fit_tree,
    leaves,
    path_of,
    ranked_leaves,
    region_of,
    visit,
)


@dataclass(frozen=True)
class Settings:
    """The settings of a preset; see `make`."""

    height: int = 5
    select: int = 10
    exploration: float = 0.1
    initial: int = 20
    form: str = "log"
    target: str = "log_rank"
    features: str = "pairs"
    proposal: str = "best"
    threshold: str = "mean"
    min_samples: int = 5
    ridge: float = 0.03
    expert: int = 40


_PUBLISHED = Settings(target="score", features="linear", proposal="uniform", ridge=1e-3)
PRESETS = {
    "default": Settings(),
    "paper": replace(_PUBLISHED, height=5, select=100, exploration=0.5, initial=200),
    "released": replace(_PUBLISHED, height=5, select=20, exploration=0.1, initial=10),
}
_NAMES = {
    "form": ("log", "sqrt"),
    "target": ("log_rank", "rank", "score"),
    "proposal": ("best", "uniform"),
    "threshold": ("mean", "median"),
    "features": ("pairs", "linear"),
}


class LanasState(NamedTuple):
    """What was evaluated, and the tree last learnt from it.

    Attributes:
      archive: evaluations, and proposals under way.
      tree: before the first fit, a root that is a leaf.
      learnt: evaluations the tree was fitted to, failed ones included; int64 [].
    """

    archive: Archive
    tree: Tree
    learnt: np.ndarray


def make(
    domain: Domain,
    *,
    preset: str = "default",
    batch: int = 1,
    sampler: str = "auto",
    candidates: int = 256,
    budget: int = 4096,
    height: int | None = None,
    select: int | None = None,
    exploration: float | None = None,
    initial: int | None = None,
    form: str | None = None,
    target: str | None = None,
    features: str | None = None,
    proposal: str | None = None,
    threshold: str | None = None,
    min_samples: int | None = None,
    ridge: float | None = None,
    expert: int | None = None,
) -> Strategy:
    """Returns LaNAS over a domain; `batch` architectures per ask.

    A leaf whose region is exhausted, or yields nothing within the budget, is tried without its deepest half-space; then
    the other leaves by their bounds; then the whole space. An architecture evaluated or under way is not proposed while
    another is in reach. A failed evaluation is never learnt from and its visit is taken back.

    Args:
      domain: the search space.
      preset: "default", the best measured; "paper", Algorithm 1 (height 5, select 100, c = 0.5, 200 initial samples);
        "released", the authors' code on NAS-Bench-101 (height 5, select 20, c = 0.1, 10 initial samples). The arguments
        below that are None are the preset's.
      batch: architectures per ask.
      sampler: how members of a leaf are found: "pool", "rejection", "walk", or "auto"; see `sampling.make_sampler`.
      candidates: members of a leaf that "best" chooses among where the space has no pool.
      budget: draws or steps for one proposal where the space has no pool.
      height: levels of the tree; 2^(height - 1) leaves at most.
      select: evaluations after which the tree is learnt afresh.
      exploration: c, as a fraction of the largest value in magnitude.
      initial: architectures drawn uniformly before the first tree.
      form: of the bound: "log" or "sqrt", see `tree.ucb`.
      target: what is regressed and averaged: the "score", its "rank" among the scores known, or "log_rank"; see
        `archive.to_values`.
      features: what the regressions are linear in: "linear" for the domain's features, "pairs" for the products of two
        of them as well.
      proposal: "uniform" for any member of the leaf, "best" for the one ranked first by the leaf's expert.
      threshold: "mean" or "median", see `tree.fit_tree`.
      min_samples: least evaluated architectures on either side of a split.
      ridge: penalty of the regressions, see `tree.fit_ridge`.
      expert: the leaf's expert is the deepest regression on its path that is fitted to at least so many evaluations.

    Raises:
      UserError: for an unknown preset, sampler or named setting, or a setting of the wrong type or out of range.
    """
    if preset not in PRESETS:
        raise unknown("preset of lanas", preset, PRESETS)
    given = {
        "height": height,
        "select": select,
        "exploration": exploration,
        "initial": initial,
        "form": form,
        "target": target,
        "features": features,
        "proposal": proposal,
        "threshold": threshold,
        "min_samples": min_samples,
        "ridge": ridge,
        "expert": expert,
    }
    chosen = _checked(replace(PRESETS[preset], **{name: value for name, value in given.items() if value is not None}))
    if min(batch, candidates, budget) < 1:
        raise UserError(
            f"batch, candidates and budget of lanas are {batch}, {candidates}, {budget}; each is at least 1"
        )
    encoding = make_encoding(domain, interactions=chosen.features == "pairs")
    sample = make_sampler(domain, encoding, sampler, candidates=candidates, budget=budget)
    length = len(domain.sizes)

    def encoded(architectures: np.ndarray) -> np.ndarray:
        return encoding.expand(encoding.encode(architectures))

    width = encoded(np.asarray(domain.sample(jax.random.key(0), 1), np.int32)).shape[1]

    def init(key: jax.Array) -> LanasState:
        del key
        return LanasState(empty_archive(length), empty_tree(chosen.height, width), np.zeros((), np.int64))

    def ask(key: jax.Array, state: LanasState) -> tuple[np.ndarray, LanasState]:
        rng = host_rng(key)
        archive, tree = state.archive, state.tree
        used = taken(archive)
        proposals = []
        for _ in range(batch):
            if int(state.learnt):
                largest = float(np.abs(_values(archive, state, chosen)).max())
                order = ranked_leaves(tree, exploration=chosen.exploration * largest, form=chosen.form)
                best = expert_of(tree, order[0], chosen.expert)
                ranking = linear_margin(encoding, tree.weights[best], float(tree.offset[best]))
                proposal = draw_with_fallback(
                    rng,
                    (region_of(tree, leaf, encoding) for leaf in order),
                    sample,
                    domain,
                    archive.architectures,
                    used,
                    ranking if chosen.proposal == "best" else None,
                )
                tree = visit(tree, path_of(tree, encoded(proposal[None])[0]), visits=1)
            else:
                proposal = draw_anywhere(rng, domain, archive.architectures, used)
            used.add(proposal.tobytes())
            proposals.append(proposal)
        asked = np.stack(proposals)
        return asked, state._replace(archive=propose(archive, asked), tree=tree)

    def tell(state: LanasState, architectures: ArrayLike, scores: ArrayLike) -> tuple[LanasState, Info]:
        archive, tree = state.archive, state.tree
        rows, told = np.asarray(architectures, np.int32), first_scores(scores)
        vectors = encoded(rows) if len(rows) else np.zeros((0, width), np.float32)
        reference = archive.scores[: int(state.learnt)]
        reference = reference[np.isfinite(reference)]
        for row, vector, score in zip(rows, vectors, told, strict=True):
            archive, was_pending = record(archive, row, float(score))
            if int(state.learnt):
                finite = bool(np.isfinite(score))
                value = float(to_values(np.array([score]), reference, chosen.target)[0]) if finite else None
                tree = visit(tree, path_of(tree, vector), visits=int(finite) - int(was_pending), value=value)
        scored = succeeded(archive)
        info = {
            "failed": int((~np.isfinite(told)).sum()),
            "best": float(archive.scores[scored].max()) if scored.any() else float("nan"),
            "leaves": len(leaves(tree)),
        }
        if int(state.learnt) and np.isfinite(told).sum() > 1:
            finite = np.isfinite(told)
            predicted = vectors[finite] @ state.tree.weights[0]
            info["rank_correlation"] = rank_correlation(predicted, told[finite])
        known, learnt = len(archive.scores), int(state.learnt)
        due = known - learnt >= chosen.select if learnt else known >= chosen.initial
        if due and scored.any():
            values = to_values(archive.scores[scored], archive.scores[scored], chosen.target)
            tree = fit_tree(
                encoded(archive.architectures[scored]),
                values,
                height=chosen.height,
                min_samples=chosen.min_samples,
                ridge=chosen.ridge,
                threshold=chosen.threshold,
            )
            if len(archive.pending):
                for vector in encoded(archive.pending):
                    tree = visit(tree, path_of(tree, vector), visits=1)
            learnt = known
        return LanasState(archive, tree, np.asarray(learnt, np.int64)), info

    return Strategy(init, ask, tell, jittable=False)


def _values(archive: Archive, state: LanasState, chosen: Settings) -> np.ndarray:
    scores = archive.scores[: int(state.learnt)]
    scores = scores[np.isfinite(scores)]
    return to_values(scores, scores, chosen.target)


def _checked(chosen: Settings) -> Settings:
    for field in fields(Settings):
        value, kind = getattr(chosen, field.name), type(getattr(PRESETS["default"], field.name))
        if kind is float and type(value) is int:
            continue
        if type(value) is not kind:
            raise UserError(f"option {field.name} of strategy lanas is {value!r}; it must be a {kind.__name__}")
        if kind is str and value not in _NAMES[field.name]:
            raise unknown(f"{field.name} of lanas", value, _NAMES[field.name])
    if not 1 <= chosen.height <= 12:
        raise UserError(f"height of lanas is {chosen.height}; it is from 1 to 12")
    if (
        min(chosen.select, chosen.initial, chosen.min_samples, chosen.expert) < 1
        or chosen.exploration < 0
        or chosen.ridge <= 0
    ):
        raise UserError(
            "options of lanas are out of range; select, initial, min_samples and expert must be at least 1, "
            "exploration at least 0 and ridge above 0"
        )
    return chosen
