"""Where a table holds an architecture, for traced architectures: a dense array, or binary search for large spaces."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike

_WORD = 2**31


def _in_range(sizes: tuple[int, ...], architectures: jax.Array) -> jax.Array:
    return ((architectures >= 0) & (architectures < np.array(sizes, np.int32)[None, :])).all(1)


def dense_lookup(sizes: tuple[int, ...], rows: np.ndarray) -> Callable[[ArrayLike], jax.Array]:
    """Returns the lookup through one int32 for every combination of options."""
    places = np.cumprod([1, *sizes[:0:-1]])[::-1].astype(np.int32)
    dense = np.full(int(np.prod(np.array(sizes, object))), -1, np.int32)
    dense[rows @ places] = np.arange(len(rows))
    table = jnp.asarray(dense)

    def lookup(architectures: ArrayLike) -> jax.Array:
        architectures = jnp.asarray(architectures, jnp.int32)
        inside = _in_range(sizes, architectures)
        codes = (jnp.where(inside[:, None], architectures, 0) * places[None, :]).sum(1)
        return jnp.where(inside, table[codes], -1)

    return lookup


def sorted_lookup(sizes: tuple[int, ...], rows: np.ndarray) -> Callable[[ArrayLike], jax.Array]:
    """Returns the lookup by binary search among codes of as many 31-bit words as the choices need."""
    word, place = [], []
    capacity = 1
    for size in sizes:
        capacity *= size
        if not word or capacity > _WORD:
            word.append(len(set(word)))
            capacity = size
        else:
            word.append(word[-1])
        place.append(capacity // size)
    packing = np.zeros((len(sizes), word[-1] + 1), np.int32)
    packing[np.arange(len(sizes)), word] = place
    codes = (rows[:, :, None].astype(np.int64) * packing).sum(1).astype(np.int32)
    order = np.lexsort(codes.T[::-1])
    ordered, row_of = jnp.asarray(codes[order]), jnp.asarray(order, jnp.int32)
    halvings = len(rows).bit_length()

    def before(left: jax.Array, right: jax.Array) -> jax.Array:
        """Whether codes [B, W] precede others [B, W], by their first word that differs."""
        differ = left != right
        at = jnp.argmax(differ, 1)[:, None]
        less = jnp.take_along_axis(left, at, 1) < jnp.take_along_axis(right, at, 1)
        return differ.any(1) & less[:, 0]

    def lookup(architectures: ArrayLike) -> jax.Array:
        architectures = jnp.asarray(architectures, jnp.int32)
        inside = _in_range(sizes, architectures)
        query = (jnp.where(inside[:, None], architectures, 0)[:, :, None] * packing[None]).sum(1)
        low = jnp.zeros(query.shape[0], jnp.int32)
        high = jnp.full(query.shape[0], len(rows), jnp.int32)

        def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = bounds
            middle = (low + high) // 2
            right = before(ordered[jnp.minimum(middle, len(rows) - 1)], query) & (low < high)
            return jnp.where(right, middle + 1, low), jnp.where(right, high, jnp.maximum(middle, low))

        low, _ = jax.lax.fori_loop(0, halvings, halve, (low, high))
        at = jnp.minimum(low, len(rows) - 1)
        return jnp.where(inside & (ordered[at] == query).all(1), row_of[at], -1)

    return lookup
