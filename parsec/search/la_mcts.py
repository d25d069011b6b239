"""LA-MCTS: the space split by clusters of what is known, one support vector machine a split, and UCB over the parts.

Wang, Fonseca and Tian, "Learning Search Space Partition for Black-box Optimization using Monte Carlo Tree Search"
(NeurIPS 2020, arXiv 2007.00708). A leaf with more than `leaf_size` evaluated architectures is split: k-means finds two
clusters of [encoding, value], a support vector machine learns their boundary, and both the evaluated architectures and
those yet to come go where the machine says. The paper optimises inside the chosen leaf with a Gaussian process; here
the member ranked first by one regression is proposed, or any, by the samplers that LaNAS uses: where the space is small
enough to be enumerated, as on every table, all of the leaf is ranked.

A split is a function of the evaluations it was fitted to, so only these are in the state, and a split is fitted when
a walk first needs it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVC

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
    record,
    succeeded,
    taken,
    to_values,
)
from parsec.search.lanas.encoding import HalfSpace, Margin, Region, digest, linear_margin, make_encoding
from parsec.search.lanas.sampling import SAMPLERS, draw_anywhere, draw_with_fallback, make_sampler
from parsec.search.lanas.tree import fit_ridge, ucb

# Rows of a kernel matrix at a time, to bound its memory.
_CHUNK = 8192
# Fits remembered; a run needs its latest.
_MOST_FITS = 4


@dataclass(frozen=True)
class Settings:
    """The options of LA-MCTS.

    The paper learns the splits afresh after every evaluation, `select` 1, which costs a fit per evaluation.
    """

    batch: int = option(1, "architectures per ask", minimum=1, maximum=10_000)
    leaf_size: int = option(20, "theta; a node with more evaluated architectures is split", minimum=1)
    select: int = option(10, "evaluations after which the splits are learnt afresh", minimum=1)
    exploration: float = option(0.1, "c, as a fraction of the largest value in magnitude", minimum=0, maximum=1e6)
    initial: int = option(20, "architectures drawn uniformly before the first splits", minimum=1)
    form: str = option("sqrt", "of the bound, see `lanas.tree.ucb`", choices=("sqrt", "log"))
    target: str = option(
        "log_rank", "what is clustered, regressed and averaged, see `lanas.archive.to_values`", choices=TARGETS
    )
    proposal: str = option(
        "best",
        "which member of the leaf: uniform for any, best for the one ranked first by a regression on all that is known",
        choices=("best", "uniform"),
    )
    features: str = option(
        "pairs",
        "what that regression is linear in: the domain's features, or the products of two of them as well",
        choices=("pairs", "linear"),
    )
    kernel: str = option("rbf", "of the support vector machines; poly is cubic", choices=("rbf", "linear", "poly"))
    min_samples: int = option(5, "least evaluated architectures on either side of a split", minimum=1)
    ridge: float = option(0.03, "penalty of the regression", minimum=1e-9, maximum=1e6)
    sampler: str = option(
        "auto", "how members of a leaf are found, see `lanas.sampling.make_sampler`", choices=SAMPLERS
    )
    candidates: int = option(
        256, "members of a leaf that best chooses among where there is no pool", minimum=1, maximum=1_000_000
    )
    budget: int = option(
        4096, "draws or steps for one proposal where there is no pool", minimum=1, maximum=1_000_000_000
    )


class LaMctsState(NamedTuple):
    """What was evaluated, and how much of it the splits are learnt from.

    Attributes:
      archive: evaluations, and proposals under way.
      learnt: the first so many evaluations are what the splits are fitted to; int64 [], 0 before the first fit.
      seed: of k-means, int64 [].
    """

    archive: Archive
    learnt: np.ndarray
    seed: np.ndarray


class Split(NamedTuple):
    """A fitted split of a node's evaluated architectures.

    Attributes:
      margin: at least zero on the side whose mean value is higher.
      good: rows of the fit on that side, int [g].
      bad: the other rows, int [b].
    """

    margin: Margin
    good: np.ndarray
    bad: np.ndarray


@dataclass
class Fit:
    """The evaluations that splits are fitted to, and the splits fitted so far, by the path that leads to them.

    Attributes:
      name: digest of all a split depends on, the state's seed included.
      features: float32 [n, D].
      values: float64 [n].
      ranking: the regression that ranks members of a leaf.
      splits: by path, a tuple of sides (True for good); None where a node is a leaf.
    """

    name: bytes
    features: np.ndarray
    values: np.ndarray
    ranking: Margin
    splits: dict[tuple[bool, ...], Split | None] = field(default_factory=dict)


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns LA-MCTS over a domain; `batch` architectures per ask.

    A leaf whose region is exhausted, or yields nothing within the budget, is tried without its deepest split; then the
    other leaves, depth first by their bounds; then the whole space. An architecture evaluated or under way is not
    proposed while another is in reach. A failed evaluation is never learnt from.

    Raises:
      UserError: for the sampler "pool" in a space too large to enumerate.
    """
    target = settings.target
    encoding = make_encoding(domain, interactions=settings.features == "pairs")
    sample = make_sampler(domain, encoding, settings.sampler, candidates=settings.candidates, budget=settings.budget)
    fits: dict[bytes, Fit] = {}

    def fit_of(state: LaMctsState) -> Fit:
        learnt = int(state.learnt)
        rows, scores = state.archive.architectures[:learnt], state.archive.scores[:learnt]
        name = digest(rows, scores, np.int64(state.seed))
        if name not in fits:
            finite = np.isfinite(scores)
            vectors = encoding.encode(rows[finite])
            values = to_values(scores[finite], scores[finite], target)
            ranking = linear_margin(encoding, *fit_ridge(encoding.expand(vectors), values, settings.ridge))
            while len(fits) >= _MOST_FITS:
                del fits[next(iter(fits))]
            fits[name] = Fit(name, vectors, values, ranking)
        return fits[name]

    def regions(state: LaMctsState, fit: Fit, under_way: np.ndarray) -> Iterator[Region]:
        """Yields the leaves' regions, depth first, the child of the larger bound first."""
        known = int(state.learnt)
        later = np.concatenate([state.archive.architectures[known:], under_way])
        since = state.archive.scores[known:]
        counted = np.concatenate([np.isfinite(since), np.ones(len(under_way), bool)])
        reference = state.archive.scores[:known]
        reference = reference[np.isfinite(reference)]
        worth = np.full(len(later), np.nan)
        worth[: len(since)][np.isfinite(since)] = to_values(since[np.isfinite(since)], reference, target)
        vectors = encoding.encode(later) if len(later) else fit.features[:0]
        scale = settings.exploration * float(np.abs(fit.values).max())

        def descend(path: tuple[bool, ...], region: Region, rows: np.ndarray, others: np.ndarray) -> Iterator[Region]:
            if path not in fit.splits:
                fit.splits[path] = fit_split(
                    fit,
                    rows,
                    path,
                    leaf_size=settings.leaf_size,
                    min_samples=settings.min_samples,
                    kernel=settings.kernel,
                )
            split = fit.splits[path]
            if split is None:
                yield region
                return
            right = split.margin.of(vectors[others]) >= 0 if len(others) else np.zeros(0, bool)
            sides = []
            for good, inner, outer in ((True, split.good, others[right]), (False, split.bad, others[~right])):
                values = np.concatenate([fit.values[inner], worth[outer][np.isfinite(worth[outer])]])
                bound = ucb(
                    float(values.mean()),
                    len(inner) + len(outer),
                    len(rows) + len(others),
                    exploration=scale,
                    form=settings.form,
                )
                sides.append((-bound, not good, inner, outer))
            for _, bad, inner, outer in sorted(sides, key=lambda side: side[:2]):
                yield from descend((*path, not bad), (*region, HalfSpace(split.margin, not bad)), inner, outer)

        return descend((), (), np.arange(len(fit.values)), np.flatnonzero(counted))

    def init(key: jax.Array) -> LaMctsState:
        seed = np.asarray(host_rng(key).integers(2**31), np.int64)
        return LaMctsState(empty_archive(len(domain.sizes)), np.zeros((), np.int64), seed)

    def ask(key: jax.Array, state: LaMctsState) -> tuple[np.ndarray, LaMctsState]:
        rng = host_rng(key)
        archive = state.archive
        for _ in range(settings.batch):
            used = taken(archive)
            if int(state.learnt):
                fit = fit_of(state)
                found = draw_with_fallback(
                    rng,
                    regions(state, fit, archive.pending),
                    sample,
                    domain,
                    archive.architectures,
                    used,
                    fit.ranking if settings.proposal == "best" else None,
                )
            else:
                found = draw_anywhere(rng, domain, archive.architectures, used)
            archive = propose(archive, found[None])
        return archive.pending[-settings.batch :], state._replace(archive=archive)

    def tell(state: LaMctsState, architectures: ArrayLike, scores: ArrayLike) -> tuple[LaMctsState, Info]:
        archive, told = state.archive, first_scores(scores)
        for row, score in zip(np.asarray(architectures, np.int32), told, strict=True):
            archive, _ = record(archive, row, float(score))
        scored = succeeded(archive)
        known, learnt = len(archive.scores), int(state.learnt)
        due = known - learnt >= settings.select if learnt else known >= settings.initial
        if due and scored.any():
            learnt = known
        info = {
            "failed": int((~np.isfinite(told)).sum()),
            "best": float(archive.scores[scored].max()) if scored.any() else float("nan"),
            "learnt": learnt,
        }
        return LaMctsState(archive, np.asarray(learnt, np.int64), state.seed), info

    return Strategy(init, ask, tell, jittable=False)


def fit_split(
    fit: Fit, rows: np.ndarray, path: tuple[bool, ...], *, leaf_size: int, min_samples: int, kernel: str
) -> Split | None:
    """Returns the split of a node, or None where it is a leaf.

    Args:
      fit: what is known.
      rows: of the fit, those in the node.
      path: of the node; with the fit's name it seeds k-means.
      leaf_size: a node with at most so many rows is a leaf.
      min_samples: so is one that would have a child with fewer rows.
      kernel: of the support vector machine.
    """
    if len(rows) <= leaf_size:
        return None
    features, values = fit.features[rows], fit.values[rows]
    if np.ptp(values) == 0 or not np.ptp(features, 0).any():
        return None
    # The value weighs as much as the whole encoding: its variance is made the sum of the columns'.
    scaled = (values - values.mean()) / values.std() * np.sqrt(features.var(0).sum())
    seed = int.from_bytes(digest(fit.name, bytes(path))[:4], "little")
    points = np.concatenate([features, scaled[:, None].astype(np.float32)], 1)
    clusters = KMeans(2, random_state=seed).fit_predict(points)
    if min(np.bincount(clusters, minlength=2)) < min_samples:
        return None
    gamma = 1.0 / (features.shape[1] * max(float(features.var()), 1e-12))
    machine = SVC(kernel=kernel, gamma=gamma).fit(features, clusters)
    vectors = np.asarray(machine.support_vectors_, np.float32)
    duals, intercept = np.asarray(machine.dual_coef_)[0].astype(np.float32), float(np.asarray(machine.intercept_)[0])
    extra = {} if kernel == "linear" else {"gamma": gamma} if kernel == "rbf" else {"gamma": gamma, "coef0": 0.0}

    def decision(asked: np.ndarray) -> np.ndarray:
        starts = range(0, len(asked), _CHUNK)
        blocks = [pairwise_kernels(asked[at : at + _CHUNK], vectors, metric=kernel, **extra) @ duals for at in starts]
        return np.concatenate(blocks) + np.float32(intercept) if blocks else np.zeros(0, np.float32)

    positive = decision(features) >= 0
    if min(positive.sum(), (~positive).sum()) < min_samples:
        return None
    sign = np.float32(1 if values[positive].mean() >= values[~positive].mean() else -1)
    margin = Margin(digest(fit.name, bytes(path), b"split"), lambda asked: sign * decision(asked))
    good = margin.of(features) >= 0
    return Split(margin, rows[good], rows[~good])
