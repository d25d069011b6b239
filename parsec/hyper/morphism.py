"""Growing a trained network without changing what it computes, and cutting away units that count for little.

Net2Net (Chen, Goodfellow and Shlens 2016, arXiv 1511.05641) and network morphism (Wei, Wang, Rui and Chen 2016, arXiv
1603.01670): a layer that is inserted begins as the identity, a unit that is doubled shares what it passes on. Growing
and cutting are those of BULK&CUT (arXiv 2105.01015; odds, shares and the rule of what is cut are its code's), but that
a network with every layer that there may be grows wider, which theirs does not. Everything is numpy, on copies.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parsec.hyper.network import EPSILON, Variables
from parsec.hyper.space import MOST_LAYERS, HyperParameters

# Least, likeliest and largest share of the units that is cut, by what reads them: the head, an fc, a convolution.
_BY_HEAD, _BY_FC, _BY_CONV = (0.04, 0.05, 0.06), (0.065, 0.075, 0.085), (0.09, 0.10, 0.11)
# How often it is a convolution that is inserted, where either may be, and how much wider a layer grows.
_CONVOLUTIONS, _WIDER = 0.7, 1.5


class Grown(NamedTuple):
    """A network made of another, with the variables that it begins with."""

    hyper: HyperParameters
    variables: Variables


class Layer(NamedTuple):
    """A convolution or a fully connected layer.

    Attributes:
      kernel: float32 [k, k, I, O] or [I, O].
      bias: float32 [O].
      norm: scale, bias, mean and variance of the normalisation behind it, float32 [O] by name; empty without one.
    """

    kernel: np.ndarray
    bias: np.ndarray
    norm: dict[str, np.ndarray]

    @property
    def units(self) -> int:
        """O."""
        return len(self.bias)


def bulk_up(hyper: HyperParameters, variables: Variables, widest: tuple[int, int], rng: np.random.Generator) -> Grown:
    """Returns a larger network of the same function: one layer more, or where there are all, a wider one.

    Args:
      hyper: of the parent.
      variables: the parent's.
      widest: most channels of a convolution and units of a fully connected layer.
      rng: advanced.
    """
    convs, fcs = len(hyper.conv), len(hyper.fc)
    convolution = rng.random() < _CONVOLUTIONS
    if convs < MOST_LAYERS and (convolution or fcs == MOST_LAYERS):
        return deepen(hyper, variables, int(rng.integers(convs)))
    if fcs < MOST_LAYERS:
        return deepen(hyper, variables, convs + int(rng.integers(fcs)))
    at = int(rng.integers(convs + fcs))
    width, most = ((*hyper.conv, *hyper.fc)[at], widest[0 if at < convs else 1])
    return widen(hyper, variables, at, max(width, min(math.ceil(_WIDER * width), most)), rng)


def deepen(hyper: HyperParameters, variables: Variables, at: int) -> Grown:
    """Returns the network with another layer of its kind behind layer `at`, convolutions first; the function stays.

    The layer begins as the identity, a convolution before the maximum of the one it follows. Behind batch
    normalisation, whose outputs may be negative, it turns each channel so that there is a least value, and lifts it by
    that, so that ReLU lets everything through; its own normalisation turns and lowers it back, with the mean and
    variance that a batch has there.
    """
    layers, convs = _layers(hyper, variables), len(hyper.conv)
    before = layers[at]
    sign, lift, norm = np.ones(before.units, np.float32), np.zeros(before.units, np.float32), {}
    if before.norm:
        scale, shift, mean, variance = (before.norm[name] for name in ("scale", "bias", "mean", "var"))
        sign = np.where(scale < 0, -1, 1).astype(np.float32)
        lift = np.maximum(np.abs(scale) * mean / np.sqrt(variance + EPSILON) - sign * shift, 0)
        spread = np.maximum(scale**2 - EPSILON, 0)
        norm = {"scale": sign * np.sqrt(spread + EPSILON), "bias": shift, "mean": sign * shift + lift, "var": spread}
    identity = np.diag(sign)
    if at < convs:
        kernel = np.zeros((hyper.kernel_size, hyper.kernel_size, before.units, before.units), np.float32)
        kernel[hyper.kernel_size // 2, hyper.kernel_size // 2] = identity
        pools = (*hyper.pools[:at], False, *hyper.pools[at:])
        hyper = replace(hyper, conv=(*hyper.conv[: at + 1], *hyper.conv[at:]), pools=pools)
    else:
        kernel = identity
        hyper = replace(hyper, fc=(*hyper.fc[: at - convs + 1], *hyper.fc[at - convs :]))
    added = Layer(kernel, lift, {name: leaf.astype(np.float32) for name, leaf in norm.items()})
    return Grown(hyper, _variables([*layers[: at + 1], added, *layers[at + 1 :]]))


def widen(hyper: HyperParameters, variables: Variables, at: int, width: int, rng: np.random.Generator) -> Grown:
    """Returns the network with `width` units in layer `at`, convolutions first: some doubled; the function stays."""
    layers = _layers(hyper, variables)
    units = np.arange(layers[at].units)
    units = np.concatenate([units, rng.choice(units, width - len(units))])
    shares = 1 / np.bincount(units)[units]
    return _with_units(hyper, layers, at, units, shares.astype(np.float32))


def slim_down(hyper: HyperParameters, variables: Variables, rng: np.random.Generator) -> Grown:
    """Returns the network with some units fewer in each layer.

    Of each layer a share is cut that depends on the layer that reads it, from the head backwards; a fraction of a unit
    is a chance of a whole one. They are drawn from the twice as many whose outgoing weights are smallest in absolute
    sum. One unit stays.

    Args:
      hyper: of the parent.
      variables: the parent's.
      rng: advanced.
    """
    grown = Grown(hyper, variables)
    for at in reversed(range(len(hyper.conv) + len(hyper.fc))):
        layers = _layers(*grown)
        units, reader = layers[at].units, layers[at + 1]
        if at + 2 == len(layers):
            share = rng.triangular(*_BY_HEAD)
        else:
            share = rng.triangular(*(_BY_CONV if reader.kernel.ndim == 4 else _BY_FC))
        cut = min(math.floor(share * units + rng.random()), units - 1)
        weight = np.abs(_by_input(reader.kernel, units)).sum((0, 2))
        weakest = np.argsort(weight, kind="stable")[: 2 * cut]
        kept = np.setdiff1d(np.arange(units), rng.choice(weakest, cut, replace=False))
        grown = _with_units(grown.hyper, layers, at, kept, np.ones(len(kept), np.float32))
    return grown


def _with_units(hyper: HyperParameters, layers: list[Layer], at: int, units: np.ndarray, shares: np.ndarray) -> Grown:
    """Returns the network whose layer `at` has these of its units, int [n], read times `shares` float32 [n] each."""
    layer, reader = layers[at], layers[at + 1]
    norm = {name: leaf[units] for name, leaf in layer.norm.items()}
    read = _by_input(reader.kernel, layer.units)[:, units] * shares[None, :, None]
    size = (*reader.kernel.shape[:2], len(units)) if reader.kernel.ndim == 4 else (-1,)
    changed = list(layers)
    changed[at] = Layer(layer.kernel[..., units], layer.bias[units], norm)
    changed[at + 1] = reader._replace(kernel=read.reshape(*size, reader.units))
    widths = tuple(each.units for each in changed)
    convs = len(hyper.conv)
    return Grown(replace(hyper, conv=widths[:convs], fc=widths[convs:-1]), _variables(changed))


def _by_input(kernel: np.ndarray, units: int) -> np.ndarray:
    """Returns a kernel by the unit that it reads, [places, units, O]: of a flattened map, the channel comes last."""
    return kernel.reshape(-1, units, kernel.shape[-1])


def _layers(hyper: HyperParameters, variables: Variables) -> list[Layer]:
    """Returns every layer in order, the head last; each reads what the one before it puts out."""
    params, stats = variables["params"], variables.get("batch_stats", {})
    found = []
    for kind, count in (("conv", len(hyper.conv)), ("fc", len(hyper.fc) + 1)):
        for at in range(count):
            norm = f"norm_{at}" if kind == "conv" and hyper.batch_norm else ""
            leaves = {**params[norm], **stats[norm]} if norm else {}
            leaves = {name: np.asarray(leaf) for name, leaf in leaves.items()}
            kernel, bias = (np.asarray(params[f"{kind}_{at}_{name}"]) for name in ("kernel", "bias"))
            found.append(Layer(kernel, bias, leaves))
    return found


def _variables(layers: list[Layer]) -> Variables:
    """Returns layers as `ConvNet` names them."""
    params, stats, counts = {}, {}, {"conv": 0, "fc": 0}
    for layer in layers:
        kind = "conv" if layer.kernel.ndim == 4 else "fc"
        at = counts[kind]
        counts[kind] += 1
        params |= {f"{kind}_{at}_kernel": layer.kernel, f"{kind}_{at}_bias": layer.bias}
        if layer.norm:
            params[f"norm_{at}"] = {name: layer.norm[name] for name in ("scale", "bias")}
            stats[f"norm_{at}"] = {name: layer.norm[name] for name in ("mean", "var")}
    return {"params": params, **({"batch_stats": stats} if stats else {})}
