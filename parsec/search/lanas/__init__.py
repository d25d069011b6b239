"""LaNAS: learn which half of the space is better, again and again, and search where the halves say.

Wang, Xie, Li, Fonseca and Tian, "Sample-Efficient Neural Architecture Search by Learning Actions" (TPAMI 2022, arXiv
1906.06832). Evaluated architectures fit a tree of regressions (`tree`); UCB walks to a leaf; an architecture inside all
half-spaces of the path is proposed (`sampling`); after `select` evaluations the tree is learnt afresh.

Three things are settings here that the paper fixes, because each was measured to matter (docs/results/ablations.md):
what a regression predicts (the score, or a function of its rank among those known, which broken networks do not
stretch), what it is linear in (the features, or their pairwise products too), and which member of the leaf is proposed
(any, or the one that a regression ranks first). The presets `paper` and `released` keep the published choices.

Where the space is small enough to be enumerated, as on every table, the default ranks all of it for each proposal.
That ranking by ridge regressions, not the tree, is most of its lead there: without a tree (`height=1`) it needs as many
queries in the median on four of six tables. Where there is no such list it ranks what rejection and a walk find, and
needs more queries.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy
from parsec.search.lanas.archive import (
    TARGETS,
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
from parsec.search.lanas.sampling import SAMPLERS, draw_anywhere, draw_with_fallback, make_sampler
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
    """The options of LaNAS; `PRESETS` has the published ones."""

    batch: int = option(1, "architectures per ask", minimum=1, maximum=10_000)
    height: int = option(5, "levels of the tree; 2^(height - 1) leaves at most", minimum=1, maximum=12)
    select: int = option(10, "evaluations after which the tree is learnt afresh", minimum=1)
    exploration: float = option(0.1, "c, as a fraction of the largest value in magnitude", minimum=0, maximum=1e6)
    initial: int = option(20, "architectures drawn uniformly before the first tree", minimum=1)
    form: str = option("log", "of the bound, see `tree.ucb`", choices=("log", "sqrt"))
    target: str = option("rank", "what is regressed and averaged, see `archive.to_values`", choices=TARGETS)
    features: str = option(
        "pairs",
        "what the regressions are linear in: the domain's features, or the products of two of them as well",
        choices=("pairs", "linear"),
    )
    pair_weight: float = option(
        0.3, "what the products are multiplied by: small is nearly linear", minimum=1e-6, maximum=1e6
    )
    proposal: str = option(
        "best",
        "which member of the leaf: uniform for any, best for the one ranked first by the leaf's expert",
        choices=("best", "uniform"),
    )
    threshold: str = option(
        "mean", "of a split, among the values of its node, see `tree.fit_tree`", choices=("mean", "median")
    )
    min_samples: int = option(5, "least evaluated architectures on either side of a split", minimum=1)
    ridge: float = option(0.03, "penalty of the regressions, see `tree.fit_ridge`", minimum=1e-9, maximum=1e6)
    expert: int = option(
        40, "a leaf's expert is the deepest regression on its path fitted to at least so many evaluations", minimum=1
    )
    sampler: str = option("auto", "how members of a leaf are found, see `sampling.make_sampler`", choices=SAMPLERS)
    candidates: int = option(
        256, "members of a leaf that best chooses among where there is no pool", minimum=1, maximum=1_000_000
    )
    budget: int = option(
        4096, "draws or steps for one proposal where there is no pool", minimum=1, maximum=1_000_000_000
    )


_PUBLISHED = Settings(
    form="log", target="score", features="linear", proposal="uniform", threshold="mean", min_samples=5, ridge=1e-3
)
# "default" is the best measured; "paper" is Algorithm 1; "released" is the authors' code on NAS-Bench-101;
# "pareto" asks along each direction of a front for several, because its tree is learnt afresh for each.
PRESETS = {
    "default": Settings(),
    "paper": replace(_PUBLISHED, height=5, select=100, exploration=0.5, initial=200),
    "released": replace(_PUBLISHED, height=5, select=20, exploration=0.1, initial=10),
    "pareto": Settings(batch=4),
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


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns LaNAS over a domain; `batch` architectures per ask.

    A leaf whose region is exhausted, or yields nothing within the budget, is tried without its deepest half-space; then
    the other leaves by their bounds; then the whole space. An architecture evaluated or under way is not proposed while
    another is in reach. A failed evaluation is never learnt from and its visit is taken back.

    Raises:
      UserError: for the sampler "pool" in a space too large to enumerate.
    """
    encoding = make_encoding(domain, interactions=settings.features == "pairs", weight=settings.pair_weight)
    sample = make_sampler(domain, encoding, settings.sampler, candidates=settings.candidates, budget=settings.budget)
    length = len(domain.sizes)

    def encoded(architectures: np.ndarray) -> np.ndarray:
        return encoding.expand(encoding.encode(architectures))

    width = encoded(np.asarray(domain.sample(jax.random.key(0), 1), np.int32)).shape[1]

    def init(key: jax.Array) -> LanasState:
        del key
        return LanasState(empty_archive(length), empty_tree(settings.height, width), np.zeros((), np.int64))

    def ask(key: jax.Array, state: LanasState) -> tuple[np.ndarray, LanasState]:
        rng = host_rng(key)
        archive, tree = state.archive, state.tree
        used = taken(archive)
        proposals = []
        for _ in range(settings.batch):
            if int(state.learnt):
                largest = float(np.abs(_values(archive, state, settings)).max())
                order = ranked_leaves(tree, exploration=settings.exploration * largest, form=settings.form)
                best = expert_of(tree, order[0], settings.expert)
                ranking = linear_margin(encoding, tree.weights[best], float(tree.offset[best]))
                proposal = draw_with_fallback(
                    rng,
                    (region_of(tree, leaf, encoding) for leaf in order),
                    sample,
                    domain,
                    archive.architectures,
                    used,
                    ranking if settings.proposal == "best" else None,
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
                value = float(to_values(np.array([score]), reference, settings.target)[0]) if finite else None
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
        due = known - learnt >= settings.select if learnt else known >= settings.initial
        if due and scored.any():
            values = to_values(archive.scores[scored], archive.scores[scored], settings.target)
            tree = fit_tree(
                encoded(archive.architectures[scored]),
                values,
                height=settings.height,
                min_samples=settings.min_samples,
                ridge=settings.ridge,
                threshold=settings.threshold,
            )
            if len(archive.pending):
                for vector in encoded(archive.pending):
                    tree = visit(tree, path_of(tree, vector), visits=1)
            learnt = known
        return LanasState(archive, tree, np.asarray(learnt, np.int64)), info

    return Strategy(init, ask, tell, jittable=False)


def _values(archive: Archive, state: LanasState, settings: Settings) -> np.ndarray:
    scores = archive.scores[: int(state.learnt)]
    scores = scores[np.isfinite(scores)]
    return to_values(scores, scores, settings.target)
