"""A deliberately dull quantizer, to test hosts without testing a method.

It multiplies by a trainable gain rounded to nothing in particular, counts its calls in training,
and charges a loss for its gain, so every path of the protocol is visible in plain numbers.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from kerasbits.packed import PackedTensor, Uniform, UniformGrid
from kerasbits.quantizers.base import NOT_FROZEN, Quantizer, VariableSpec


@keras.saving.register_keras_serializable(package="kerasbits_tests")
@dataclasses.dataclass(frozen=True)
class Dull(Quantizer):
    gain: float = 2.0
    strength: float = 0.5
    rate: float = 4.0

    def variables(self, site):
        specs = {
            "gain": VariableSpec((), self.gain, min=1.0, max=3.0, rate=self.rate),
            "calls": VariableSpec((), 0.0, trainable=False),
            "fixed_bits": VariableSpec((), NOT_FROZEN, trainable=False),
        }
        if site.role == "kernel":
            specs["peak"] = VariableSpec((), lambda w: np.abs(w).max(), trainable=False)
        else:
            specs["top"] = VariableSpec((), 0.0, trainable=False)
            specs["seen"] = VariableSpec((), 0.0, trainable=False)
        return specs

    def quantize(self, x, state, site, training=False, seed=None):
        return x * state["gain"], ({"calls": state["calls"] + 1.0} if training else {})

    def observed(self, site):
        return ["top", "seen"] if site.role == "input" else []

    def observe(self, x, state, site):
        top = ops.max(ops.abs(x))
        return {"top": ops.maximum(top, state["top"] * state["seen"]), "seen": ops.ones(())}

    def loss(self, state, site):
        live = ops.cast(state["fixed_bits"] < 0, "float32")
        return self.strength * site.share * state["gain"] * live

    def widths(self, state, site):
        return ops.where(state["fixed_bits"] >= 0, state["fixed_bits"], 2.0 * state["gain"])

    def freeze(self, state, site):
        if not np.isfinite(state["gain"]):
            raise site.error("a finite gain", state["gain"])
        done = state["fixed_bits"] >= 0
        return {"fixed_bits": state["fixed_bits"] if done else np.ceil(2 * state["gain"])}

    def share(self, site, sites):
        return 1 / len(sites)

    def encode(self, w, state, site):
        one = np.ones(1, np.float32)
        codes = np.clip(np.rint(w * 10) + 8, 0, 15).astype(np.uint16)
        bits = np.full(site.channels, 4)
        return PackedTensor(site.name, codes, bits, -1, Uniform(one / 10, np.array([8]), 0 * one))

    def grid(self, state, site):
        return UniformGrid(4, -8.0, 7.0, 0.0, 1.0, 8)
