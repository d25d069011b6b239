"""A random permutation of 0 .. n - 1 that can be asked for single places, without shuffling the n numbers.

Sorting 50,000 keys inside every compiled step would cost more than drawing the batch. A keyed bijection needs work for
the asked places only: a generalised Feistel network over pairs (x mod a, x div a) with a b >= n, and a walk along its
cycle back into the range where it leaves it (J. Black and P. Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA
2002). The round function is the finaliser of A. Appleby's MurmurHash3.
"""

import math

import jax
import jax.numpy as jnp

# Rounds beyond which no test here tells the permutations from drawn ones; even, so that both halves change as often.
_ROUNDS = 8


def permute(key: jax.Array, places: jax.Array, size: int) -> jax.Array:
    """Returns what lies at `places` of the key's permutation of 0 .. size - 1.

    Args:
      key: a random key; each gives its own permutation.
      places: int32 [B], each in 0 .. size - 1.
      size: length of the permutation, 1 to 2^31 - 1.

    Returns:
      int32 [B]; distinct places give distinct values.
    """
    low = math.isqrt(size - 1) + 1
    high = -(-size // low)
    keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def shuffle(x: jax.Array) -> jax.Array:
        left, right = x % low, x // low
        for i in range(0, _ROUNDS, 2):
            left = (left + _hash(right ^ keys[i]) % low) % low
            right = (right + _hash(left ^ keys[i + 1]) % high) % high
        return left + right * low

    # The network permutes 0 .. low * high - 1, fewer than `low` numbers too many. Whoever lands on one of those is sent
    # on until back in range; the way ends, as it is a cycle that began in range.
    permuted = jax.lax.while_loop(
        lambda x: jnp.any(x >= size),
        lambda x: jnp.where(x >= size, shuffle(x), x),
        shuffle(places.astype(jnp.uint32)),
    )
    return permuted.astype(jnp.int32)


def _hash(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
