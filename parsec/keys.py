"""Random keys by purpose: `fold(key, "batches")` and `fold(key, "children")` never meet, nor do they meet any counter.

With JAX's default generator `split(key, n)[i]` equals `fold_in(key, i)`: whoever splits a key and whoever folds a
counter into it share keys without a word. A key of a purpose is therefore derived by the purpose's name. The step, the
seed or the child is then folded into that key as a number, `fold_in(fold(key, "batches"), step)`.
"""

import zlib

import jax
import numpy as np

# Names fold into the upper half of uint32 and counters are below it, so that they cannot coincide.
_NAMED = 1 << 31


def fold(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of one purpose.

    Args:
      key: a random key; left free for other purposes.
      name: of the purpose, a word or two; the same name gives the same key on every machine and in every version.

    Returns:
      A key that differs from those of other names, from `fold_in(key, i)` and from `split(key, n)[i]` for i < 2^31.
    """
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode()) | _NAMED))
