"""A method of your own: write a quantizer outside of kerasbits, and use it like those inside.

    python examples/own_method.py [epochs]

The method here learns two numbers for each kernel by gradient descent: the step of the grid, and
the range it covers. How many bits that takes, follows from the two. It is the idea of Uhlich et
al., "Mixed precision DNNs: all you need is a good parametrization", arXiv 1905.11452; we learn
the logarithms of both numbers, and charge for each bit where the paper sets a budget.

A quantizer is a frozen dataclass. It owns no variables: it says which ones it needs, and is handed
their values as a dictionary, `state`. So the same class works in any layer, in `model.fit` and in
loops of your own. `site` says where it works: name of the layer, shape, number of channels.
"""

import dataclasses
import sys
from typing import ClassVar

import keras
import numpy as np
from datasets import everything, load  # of examples/datasets; digits need no download
from keras import layers, ops

import kerasbits as kb
from kerasbits import packed
from tflite_export import Interpreter, export


# Registered, so that `load_model` finds the class again; the package name is yours.
@keras.saving.register_keras_serializable(package="own_method")
@dataclasses.dataclass(frozen=True)
class StepAndRange(kb.Quantizer):
    """Whole steps from `-range` to `range`; both are learned, and with them the bits.

    Formula: `top = range / step`, `code = round(clip(w / step, -top, top))`, `wq = step * code`,
    `bits = log2(top + 1) + 1`. The loss gains `strength` times the mean bits of all weights.

    Args:
        bits: to start with.
        strength: loss per bit.
    """

    bits: float = 8.0
    strength: float = 0.1

    roles: ClassVar = ("kernel",)  # inputs would need `observe` and `grid`, too

    def __post_init__(self):
        if not (2 <= self.bits <= 16 and self.strength >= 0):
            raise ValueError(f"expected bits in [2, 16] and a strength of at least 0, got {self}")

    def variables(self, site):
        """What a layer must keep for us: how each variable starts, and who changes it.

        An initial value may depend on the kernel. With Adam a variable moves by about the learning
        rate in each step; `rate` makes that 16 times as much, as bits have a longer way to go than
        weights.
        """

        def log2_range(w):
            return np.log2(max(np.abs(w).max(), 1e-6))

        def log2_step(w):
            return log2_range(w) - np.log2(2.0 ** (self.bits - 1) - 1)

        return {
            "log2_range": kb.VariableSpec(initial=log2_range, rate=16.0),
            "log2_step": kb.VariableSpec(initial=log2_step, rate=16.0),
            # -1 until `freeze`. A name with a meaning: `export` refuses the model while it is -1.
            "fixed_bits": kb.VariableSpec(initial=-1.0, trainable=False),
        }

    def quantize(self, x, state, site, training=False, seed=None):
        """What the layer computes with instead of its kernel `x`, and updates of state: none."""
        step, top = self._grid(state)
        return step * self._codes(x, step, top), {}

    def _grid(self, state):
        """The step, and the code of the range. Once the bits are fixed, they decide the step."""
        limit = 2.0 ** ops.convert_to_tensor(state["log2_range"])
        learned = ops.clip(limit / 2.0 ** state["log2_step"], 1.0, 2.0**15 - 1)
        fixed = 2.0 ** (state["fixed_bits"] - 1) - 1
        top = ops.where(state["fixed_bits"] > 0, fixed, learned)
        return limit / top, top

    def _codes(self, x, step, top):
        """Whole codes, below 0 for negative values.

        Rounding has gradient 0 nearly everywhere; here it is given that of `steps`. The rest is
        ordinary calculus, and gives what the paper derives: weights inside the range move the step,
        those outside move the range.
        """
        steps = ops.clip(x / step, -top, top)
        return ops.stop_gradient(ops.round(steps)) + (steps - ops.stop_gradient(steps))

    def widths(self, state, site):
        """Bits a weight, real while they are learned: for reports, and for the loss."""
        _, top = self._grid(state)
        return ops.where(state["fixed_bits"] > 0, state["fixed_bits"], ops.log2(top + 1) + 1)

    def loss(self, state, site):
        """The price of the bits; nothing once they are fixed. `share` is what we say below."""
        learning = ops.cast(state["fixed_bits"] < 0, "float32")
        return self.strength * learning * site.share * self.widths(state, site)

    def share(self, site, sites):
        """The part of a layer in the whole network: here, its part of the weights."""
        return site.size / sum(s.size for s in sites)

    def freeze(self, state, site):
        """Whole bits from here on. Called once training has found them; twice must do no harm."""
        if state["fixed_bits"] > 0:
            return {}
        _, top = self._grid(state)
        return {"fixed_bits": self._whole_bits(ops.convert_to_numpy(top))}

    def _whole_bits(self, top):
        """Bits of the codes `-round(top)` to `round(top)`."""
        return np.ceil(np.log2(np.round(top) + 1)) + 1

    def encode(self, w, state, site):
        """The kernel as whole numbers from 0 up, and what they mean: all that exporters ask for.

        Besides `Uniform`, `kerasbits.packed` has levels of a table and sums of bit planes.
        """
        step, top = (ops.convert_to_numpy(v) for v in self._grid(state))
        codes = ops.convert_to_numpy(self._codes(w, step, top))
        zero = np.round(top).astype(np.int32)  # the code of 0 is in the middle
        return packed.PackedTensor(
            name=site.name,
            codes=(codes + zero).astype(np.uint16),
            bits=np.full(site.channels, self._whole_bits(top), np.int32),
            channel_axis=site.channel_axis % w.ndim,
            encoding=packed.Uniform(
                scale=np.float32([step]), zero=np.array([zero]), origin=np.zeros(1, np.float32)
            ),
        )


if __name__ == "__main__":
    EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 10  # 10 take half a minute

    keras.utils.set_random_seed(0)
    digits = load("digits", validation=0)
    (x, y), (x_test, y_test) = everything(digits.train), everything(digits.test)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(x, y, epochs=EPOCHS, verbose=0)

    # From here on nothing knows that the method is ours. A layer of its own would take it as well:
    # kb.layers.QuantDense(64, kernel_quantizer=StepAndRange()).
    q = kb.quantize_model(model, kernel=StepAndRange(), inputs=kb.Uniform(bits=8))
    kb.calibrate(q, x[:256])
    q.compile("adam", loss, metrics=["accuracy"])
    q.fit(x, y, epochs=EPOCHS, verbose=0, callbacks=[kb.callbacks.Progress()])
    kb.freeze(q)
    q.fit(x, y, epochs=EPOCHS // 2 or 1, verbose=0, callbacks=[kb.callbacks.Progress()])
    kb.summary(q)

    # Programs that load the model have to import the class first; a module of its own is the place.
    q.save("own_method.keras")
    loaded = keras.models.load_model("own_method.keras")
    difference = np.abs(loaded.predict(x_test, verbose=0) - q.predict(x_test, verbose=0)).max()
    print(f"largest difference of the loaded model: {difference}")

    # The file is checked against the model, so a mistake in `encode` would be an error here.
    print(export(loaded, "own_method.tflite", sample=x[:64]))
    logits = Interpreter("own_method.tflite").predict(x_test)
    print(f"{np.mean(logits.argmax(-1) == y_test):.1%} of the test digits right")

    # To add a method to kerasbits itself: CONTRIBUTING.md, "Add a method".
