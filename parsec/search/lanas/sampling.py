"""Drawing unevaluated architectures inside a region: from the pool, by rejection, or by a constrained walk.

Every half-space of the region holds for whatever is drawn; what to do when nothing is left in it is the caller's affair
(`draw_with_fallback`). The walk is the discrete counterpart of the hit-and-run and Gibbs samplers that Wang et al. 2021
(arXiv 1906.06832) cite for sampling a polytope: it starts at members of the region that are already known, so it works
where the region is far too small for rejection.
"""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from parsec.cells.domain import Domain
from parsec.errors import UserError, unknown
from parsec.search.lanas.encoding import Encoding, Margin, Region

# draw(rng, region, known, taken, ranking) -> int32 [L] or None: a member of the region whose key is not in `taken`, at
# random, or the best of those considered where there is a ranking. `known` is int32 [k, L], what was evaluated,
# wherever it lies. None where nothing was found.
Sampler = Callable[[np.random.Generator, Region, np.ndarray, set[bytes], Margin | None], np.ndarray | None]

SAMPLERS = ("auto", "pool", "rejection", "walk")
# Architectures drawn or walked at a time.
_BLOCK = 256
_CHAINS = 32
# Members remembered by region; a run needs those of one tree.
_MOST_REMEMBERED = 64


def make_sampler(domain: Domain, encoding: Encoding, name: str, *, candidates: int, budget: int) -> Sampler:
    """Returns a sampler.

    Args:
      domain: of the architectures.
      encoding: what regions and rankings are functions of.
      name: "pool" filters the enumerated space; "rejection" draws uniformly until `budget` draws are spent; "walk"
        takes at most `budget` steps of random chains that never leave the region; "auto" is the pool where there is
        one, else rejection and then the walk.
      candidates: how many members rejection and the walk look for; the pool sampler considers all.
      budget: draws or steps for one proposal.

    Raises:
      UserError: for an unknown name, or "pool" in a space too large to enumerate.
    """
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    if name == "pool" and domain.pool is None:
        raise UserError("sampler 'pool' needs a space small enough to enumerate; choose rejection, walk or auto")
    if name == "pool" or (name == "auto" and domain.pool is not None):
        return pool_sampler(domain, encoding)
    rejection = rejection_sampler(domain, encoding, candidates=candidates, budget=budget)
    walk = walk_sampler(domain, encoding, candidates=candidates, budget=budget)
    if name != "auto":
        return rejection if name == "rejection" else walk

    def either(rng, region, known, taken, ranking):
        drawn = rejection(rng, region, known, taken, ranking)
        return walk(rng, region, known, taken, ranking) if drawn is None else drawn

    return either


def pool_sampler(domain: Domain, encoding: Encoding) -> Sampler:
    """Returns the sampler that filters every architecture of an enumerable space.

    A region's members and a ranking's values depend on nothing but their names, so the latest are remembered.
    """
    assert domain.pool is not None
    pool = np.ascontiguousarray(domain.pool, np.int32)
    features = encoding.encode(pool)
    keys = [row.tobytes() for row in pool]
    row_of = {key: at for at, key in enumerate(keys)}
    members: dict[tuple, np.ndarray] = {}
    rankings: dict[bytes, np.ndarray] = {}

    def inside(region: Region) -> np.ndarray:
        path = tuple((half.margin.name, half.positive) for half in region)
        if not path:
            return np.arange(len(pool))
        if path not in members:
            outer = inside(region[:-1])
            kept = outer[region[-1].contains(features[outer] if len(region) > 1 else features)]
            while len(members) >= _MOST_REMEMBERED:
                del members[next(iter(members))]
            members[path] = kept
        return members[path]

    def draw(rng, region, known, taken, ranking):
        rows = inside(region)
        if len(rows) <= len(taken):
            rows = rows[[keys[row] not in taken for row in rows]] if len(rows) else rows
        else:
            free = np.ones(len(pool), bool)
            free[[row_of[key] for key in taken if key in row_of]] = False
            rows = rows[free[rows]]
        if not len(rows):
            return None
        if ranking is None:
            return pool[rng.choice(rows)]
        if ranking.name not in rankings:
            while len(rankings) >= _MOST_REMEMBERED // 8:
                del rankings[next(iter(rankings))]
            rankings[ranking.name] = ranking.of(features)
        return pool[_best(rng, rows, rankings[ranking.name][rows])]

    return draw


def rejection_sampler(domain: Domain, encoding: Encoding, *, candidates: int, budget: int) -> Sampler:
    """Returns the sampler that draws uniformly over the space and keeps what lies in the region."""
    sample = jax.jit(domain.sample, static_argnums=1) if domain.jittable else domain.sample

    def draw(rng, region, known, taken, ranking):
        found: dict[bytes, np.ndarray] = {}
        for _ in range(max(1, budget // _BLOCK)):
            drawn = np.asarray(sample(_key(rng), _BLOCK), np.int32)
            held = drawn[_inside(region, encoding.encode(drawn))] if region else drawn
            found |= {row.tobytes(): row for row in held if row.tobytes() not in taken}
            if len(found) >= (1 if ranking is None else candidates):
                break
        return _pick(rng, found, encoding, ranking)

    return draw


def walk_sampler(domain: Domain, encoding: Encoding, *, candidates: int, budget: int) -> Sampler:
    """Returns the sampler that walks inside the region from its known members.

    Each chain proposes a uniformly drawn neighbour and stays where that lies outside; where every architecture has
    equally many neighbours its stationary law is uniform over the connected part of the region. With a ranking the
    chains start at the best ranked members known, without one at random members.
    """
    if domain.jittable:
        many = jax.jit(jax.vmap(domain.mutate))

        def mutate(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
            return np.asarray(many(jax.random.split(_key(rng), len(rows)), rows), np.int32)
    else:

        def mutate(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
            return np.stack([np.asarray(domain.mutate(_key(rng), row), np.int32) for row in rows])

    def draw(rng, region, known, taken, ranking):
        found: dict[bytes, np.ndarray] = {}
        known_features = encoding.encode(known) if len(known) else np.zeros((0, 0), np.float32)
        starts = np.flatnonzero(_inside(region, known_features)) if len(known) else np.zeros(0, int)
        if not len(starts):
            return None
        if ranking is None:
            chains = known[rng.choice(starts, _CHAINS)]
        else:
            order = np.argsort(-ranking.of(known_features[starts]), kind="stable")[:_CHAINS]
            chains = known[np.resize(starts[order], _CHAINS)]
        for _ in range(max(1, budget // _CHAINS)):
            moved = mutate(rng, chains)
            chains = np.where(_inside(region, encoding.encode(moved))[:, None], moved, chains)
            found |= {row.tobytes(): row for row in chains if row.tobytes() not in taken}
            if len(found) >= candidates:
                break
        return _pick(rng, found, encoding, ranking)

    return draw


def draw_with_fallback(
    rng: np.random.Generator,
    regions: Iterable[Region],
    sampler: Sampler,
    domain: Domain,
    known: np.ndarray,
    taken: set[bytes],
    ranking: Margin | None,
) -> np.ndarray:
    """Returns one architecture, int32 [L], that is not taken while any untaken one is in reach.

    The regions are tried in order: the chosen leaf's, then the others. The chosen leaf's is tried once more without its
    deepest half-space before the others are. Where all are exhausted the whole space is drawn from: the pool, or
    uniform draws, then the neighbours of what is known. Only if all of that is taken is an architecture repeated.
    """
    for at, region in enumerate(regions):
        for tried in (region, region[:-1]) if at == 0 and region else (region,):
            drawn = sampler(rng, tried, known, taken, ranking)
            if drawn is not None:
                return drawn
    return draw_anywhere(rng, domain, known, taken)


def draw_anywhere(rng: np.random.Generator, domain: Domain, known: np.ndarray, taken: set[bytes]) -> np.ndarray:
    """Returns an architecture, int32 [L], uniform over those not taken; repeats one only where none is in reach.

    Without a pool, "in reach" means: found among 1,024 uniform draws, or a neighbour of a known architecture.
    """
    if domain.pool is None:
        for _ in range(4):
            drawn = np.asarray(domain.sample(_key(rng), _BLOCK), np.int32)
            free = [row for row in drawn if row.tobytes() not in taken]
            if free:
                return free[0]
        for row in known[rng.permutation(len(known))]:
            free = [near for near in np.asarray(domain.neighbours(row), np.int32) if near.tobytes() not in taken]
            if free:
                return free[int(rng.integers(len(free)))]
        return np.asarray(domain.sample(_key(rng), 1), np.int32)[0]
    # Most draws are free until most of the pool is taken; then the rest is listed.
    for _ in range(64):
        row = np.asarray(domain.pool[int(rng.integers(len(domain.pool)))], np.int32)
        if row.tobytes() not in taken:
            return row
    free = [row for row in np.asarray(domain.pool, np.int32) if row.tobytes() not in taken]
    left = free or domain.pool
    return np.asarray(left[int(rng.integers(len(left)))], np.int32)


def _inside(region: Region, features: np.ndarray) -> np.ndarray:
    held = np.ones(len(features), bool)
    for half in region:
        held &= half.contains(features)
    return held


def _pick(
    rng: np.random.Generator, found: dict[bytes, np.ndarray], encoding: Encoding, ranking: Margin | None
) -> np.ndarray | None:
    if not found:
        return None
    rows = np.array(list(found.values()), np.int32)
    if ranking is None:
        return rows[int(rng.integers(len(rows)))]
    return rows[_best(rng, np.arange(len(rows)), ranking.of(encoding.encode(rows)))]


def _best(rng: np.random.Generator, rows: np.ndarray, values: np.ndarray) -> int:
    """Returns the row of the largest value, uniformly among ties."""
    return int(rng.choice(rows[values == values.max()]))


def _key(rng: np.random.Generator) -> jax.Array:
    return jax.random.key(int(rng.integers(2**32)))
