"""Architectures as vectors: the domain's features, and the pairwise products a latent action may be linear in.

A split of LaNAS is linear in an encoding (Wang et al. 2021, "Sample-Efficient Neural Architecture Search by Learning
Actions", arXiv 1906.06832). Linear in one-hot choices, it cannot say that two choices are good only together; linear in
the products of two features it can, and it is still a closed-form regression. The products of a pool are never stored:
a linear function of them is a quadratic form of the features.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from parsec.cells.domain import Domain

# Architectures are encoded this many at a time, so that two shapes are compiled however many there are.
_FEW, _ROWS = 16, 1024
# Rows of a quadratic form at a time, to bound its temporary memory.
_CHUNK = 65_536


@dataclass(frozen=True)
class Encoding:
    """A fixed encoding of a domain's architectures.

    Attributes:
      encode: `encode(architectures int32 [n, L]) -> float32 [n, D]`, on the host.
      pairs: int32 [Q, 2], the products appended to the D features; Q = 0 for a linear encoding.
      weight: what every product is multiplied by. A ridge regression believes in products the less, the smaller it is.
    """

    encode: Callable[[np.ndarray], np.ndarray]
    pairs: np.ndarray
    weight: float = 1.0

    def expand(self, features: np.ndarray) -> np.ndarray:
        """Returns the features and their weighted products, float32 [n, P] with P = D + Q, of float32 [n, D]."""
        products = features[:, self.pairs[:, 0]] * features[:, self.pairs[:, 1]]
        return np.concatenate([features, np.float32(self.weight) * products], 1)


@dataclass(frozen=True)
class Margin:
    """A real function of encoded architectures, such as a regression less its threshold.

    Attributes:
      name: a digest of everything the function depends on; equal names mean equal functions.
      of: `of(features float32 [n, D]) -> float [n]`.
    """

    name: bytes
    of: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class HalfSpace:
    """Where a margin is at least zero (`positive`), or where it is below."""

    margin: Margin
    positive: bool

    def contains(self, features: np.ndarray) -> np.ndarray:
        """Returns bool [n] for float32 [n, D]."""
        return (self.margin.of(features) >= 0) == self.positive


# The intersection of half-spaces, in the order of a path from the root of a tree; empty for the whole space.
Region = tuple[HalfSpace, ...]


def make_encoding(
    domain: Domain, *, interactions: bool, weight: float = 1.0, most_pairs: int = 4096, seed: int = 0
) -> Encoding:
    """Returns the encoding of a domain.

    Args:
      domain: whose `features` are encoded.
      interactions: whether products of two features are appended.
      weight: of the products, positive.
      most_pairs: at most this many products are kept, those of largest variance over 4,096 architectures drawn
        uniformly; products that never vary, such as those of two options of one choice, are always dropped.
      seed: of that draw; the pairs are a property of the domain and the same in every run.
    """
    features = jax.jit(domain.features) if domain.jittable else domain.features

    def encode(architectures: np.ndarray) -> np.ndarray:
        rows = np.asarray(architectures, np.int32)
        block = _FEW if len(rows) <= _FEW else _ROWS
        padded = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % block, 0)])
        blocks = [np.asarray(features(padded[at : at + block]), np.float32) for at in range(0, len(padded), block)]
        return np.concatenate(blocks)[: len(rows)]

    pairs = np.zeros((0, 2), np.int32)
    if interactions:
        drawn = encode(np.asarray(domain.sample(jax.random.key(seed), 4 * _ROWS))).astype(np.float64)
        first, second = np.triu_indices(drawn.shape[1], 1)
        # Var(xy) = E[x^2 y^2] - E[xy]^2, for every pair in two matrix products.
        mean = drawn.T @ drawn / len(drawn)
        variance = ((drawn**2).T @ drawn**2 / len(drawn) - mean**2)[first, second]
        kept = np.argsort(-variance, kind="stable")[:most_pairs]
        kept = np.sort(kept[variance[kept] > 1e-9])
        pairs = np.stack([first[kept], second[kept]], 1).astype(np.int32)
    return Encoding(encode, pairs, weight)


def linear_margin(encoding: Encoding, weights: np.ndarray, offset: float) -> Margin:
    """Returns the margin `expand(features) @ weights + offset` with weights float32 [P]."""
    name = digest(weights, np.float64(offset))

    def of(features: np.ndarray) -> np.ndarray:
        width = features.shape[1]
        if not len(encoding.pairs):
            return features @ weights + offset
        form = np.zeros((width, width), np.float32)
        form[encoding.pairs[:, 0], encoding.pairs[:, 1]] = np.float32(encoding.weight) * weights[width:]
        form[np.arange(width), np.arange(width)] = 0.0
        margins = np.empty(len(features), np.float32)
        for at in range(0, len(features), _CHUNK):
            rows = features[at : at + _CHUNK]
            margins[at : at + _CHUNK] = ((rows @ form + weights[:width]) * rows).sum(1) + offset
        return margins

    return Margin(name, of)


def digest(*parts: np.ndarray | np.generic | bytes) -> bytes:
    """Returns 16 bytes that differ where the contents of any part differ."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
        hashed.update(b"|")
    return hashed.digest()
