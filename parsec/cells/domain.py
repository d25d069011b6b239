"""What a strategy may know of a search space: its domain.

A `Space` knows cells and networks; its domain is what is left when these are taken away, as functions of vectors of
options: their sizes, which of them are valid, uniform samples, neighbours, an encoding, and the list of all of them
where there is one. Tables have domains too, without any space.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

# Architectures int32 [B, L] or scores float32 [B, M]; numpy or jax.
ArrayLike = jax.Array | np.ndarray


@dataclass(frozen=True)
class Domain:
    """What a strategy may know of a search space.

    Attributes:
      sizes: options of each choice; L of them.
      sample: `sample(key, n) -> int32 [n, L]`, valid architectures, uniform over the valid ones; `n` is static.
      mutate: `mutate(key, architecture) -> int32 [L]`, a uniformly drawn valid neighbour that differs in one decision.
      neighbours: `neighbours(architecture) -> int32 [M, L]`, every valid neighbour; on the host.
      valid: `valid(architectures) -> bool [B]`; works on traced int32 [B, L].
      legal: `legal(prefix) -> bool [size]`: which options of choice `len(prefix)` can still end in a valid
        architecture; on the host. Trees expand legal actions only.
      features: `features(architectures) -> float32 [B, D]`: one encoding of fixed length whose positions mean the
        same for every architecture; works on traced int32 [B, L].
      pool: every distinct valid architecture, int32 [N, L], where the space is small enough to enumerate; else
        None.
      common: features of an architecture that may matter wherever they come from, such as how often an operation
        occurs: what each option adds to each of them, float32 [F, L, max(sizes)], zero where masked; None where
        nothing is known of that.
      known: what each option adds to the first score as is known before any, float32 [L, max(sizes)], zero where
        masked; None where nothing is.
      initial: what another search learnt about this one, the logits of a prior over architectures, float32
        [L, max(sizes)], zero where masked; None where nothing is known. A strategy that starts from it says so in
        its registry entry; no other reads it.
      fidelities: how long an architecture may be trained, in epochs, rising; the last is what counts in the end. Empty
        where every evaluation is alike. Only a strategy of several fidelities reads it (`parsec.search.contract`).
      jittable: whether `sample` and `mutate` are plain `jax.numpy`.
    """

    sizes: tuple[int, ...]
    sample: Callable[[jax.Array, int], ArrayLike]
    mutate: Callable[[jax.Array, ArrayLike], ArrayLike]
    neighbours: Callable[[np.ndarray], np.ndarray]
    valid: Callable[[ArrayLike], ArrayLike]
    legal: Callable[[tuple[int, ...]], np.ndarray]
    features: Callable[[ArrayLike], ArrayLike]
    pool: np.ndarray | None = None
    jittable: bool = True
    fidelities: tuple[int, ...] = ()
    common: np.ndarray | None = None
    known: ArrayLike | None = None
    initial: ArrayLike | None = None

    @property
    def mask(self) -> np.ndarray:
        """Which options exist, bool [L, max(sizes)]."""
        return np.arange(max(self.sizes)) < np.array(self.sizes)[:, None]


def add_up(effects: np.ndarray, architectures: np.ndarray) -> np.ndarray:
    """Returns the sums of the effects [L, O] of the options taken, for each architecture int32 [N, L]; float64 [N]."""
    return effects[np.arange(len(effects)), architectures].sum(1, dtype=np.float64)


def product_domain(sizes: tuple[int, ...], *, largest_pool: int = 100_000, common: np.ndarray | None = None) -> Domain:
    """Returns the domain in which every combination of options is valid and distinct.

    Args:
      sizes: options of each choice; L of them, each at least 1.
      largest_pool: `pool` is enumerated up to this many architectures, in lexicographic order.
      common: as of `Domain`.
    """
    size = jnp.array(sizes, jnp.int32)
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    searched = np.flatnonzero(np.array(sizes) > 1)

    def sample(key: jax.Array, n: int) -> jax.Array:
        return jax.random.randint(key, (n, len(sizes)), 0, jnp.tile(size[None, :], (n, 1)), jnp.int32)

    def mutate(key: jax.Array, architecture: ArrayLike) -> jax.Array:
        which, step = jax.random.split(key)
        at = jax.random.choice(which, jnp.array(searched, jnp.int32))
        # A step of 1 .. size - 1 around the ring of options reaches every other option equally often.
        moved = (jnp.asarray(architecture)[at] + jax.random.randint(step, (), 1, size[at], jnp.int32)) % size[at]
        return jnp.asarray(architecture).at[at].set(moved)

    def neighbours(architecture: np.ndarray) -> np.ndarray:
        rows = []
        for at, options in enumerate(sizes):
            for option in range(options):
                if option != architecture[at]:
                    rows.append(np.array(architecture, np.int32))
                    rows[-1][at] = option
        return np.stack(rows) if rows else np.zeros((0, len(sizes)), np.int32)

    def features(architectures: ArrayLike) -> jax.Array:
        columns = jnp.asarray(architectures) + offsets[None, :]
        return jax.nn.one_hot(columns, sum(sizes), dtype=jnp.float32).sum(1)

    count = int(np.prod(np.array(sizes, object)))
    pool = None
    if count <= largest_pool:
        pool = np.stack(np.unravel_index(np.arange(count), sizes), 1).astype(np.int32)
    return Domain(
        sizes=tuple(int(s) for s in sizes),
        sample=sample,
        mutate=mutate,
        neighbours=neighbours,
        valid=lambda architectures: jnp.ones(jnp.asarray(architectures).shape[:-1], bool),
        legal=lambda prefix: np.ones(sizes[len(prefix)], bool),
        features=features,
        pool=pool,
        common=common,
    )


def one_change(sizes: tuple[int, ...]) -> Callable[[ArrayLike], jax.Array]:
    """Returns the function from an architecture int32 [L] to all that differ in one decision, int32 [M, L].

    M is the sum of `size - 1` over the choices. Rows are not filtered for validity. Works on traced architectures.
    """
    at = np.repeat(np.arange(len(sizes)), np.array(sizes) - 1)
    step = np.concatenate([np.arange(1, size) for size in sizes]).astype(np.int32)
    size = np.array(sizes, np.int32)[at]
    rows = np.arange(len(at))

    def changed(architecture: ArrayLike) -> jax.Array:
        architecture = jnp.asarray(architecture, jnp.int32)
        moved = (architecture[at] + step) % size
        return jnp.tile(architecture[None, :], (len(at), 1)).at[rows, at].set(moved)

    return changed


def mutation_within(
    sizes: tuple[int, ...], valid: Callable[[ArrayLike], ArrayLike], sample: Callable[[jax.Array, int], ArrayLike]
) -> Callable[[jax.Array, ArrayLike], jax.Array]:
    """Returns `mutate` of a domain that holds a part of all vectors: one of the valid changes of a single decision.

    An architecture without any is followed by a sample. Works on traced architectures.
    """
    changes = one_change(sizes)

    def mutate(key: jax.Array, architecture: ArrayLike) -> jax.Array:
        pick, other = jax.random.split(key)
        around = changes(architecture)
        inside = jnp.asarray(valid(around))
        chosen = around[jnp.argmax(jnp.where(inside, jax.random.uniform(pick, inside.shape), -1.0))]
        return jnp.where(inside.any(), chosen, jnp.asarray(sample(other, 1))[0])

    return mutate
