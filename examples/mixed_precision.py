"""Mixed precision by rules: say for each part of a model how it is quantized.

    python examples/mixed_precision.py [epochs]

Few models want the same treatment everywhere. Here the first layer sees raw pixels and keeps 8
bits, depthwise kernels are small and delicate, most weights are in one dense layer, and the last
layer stays float. A rule is a regular expression for the path of a layer, and what to do with it.
"""

import sys

import keras
from datasets import everything, load  # of examples/datasets; digits need no download
from keras import layers

import kerasbits as kb

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 10  # 10 take under a minute

keras.utils.set_random_seed(0)
digits = load("digits", validation=0)
(x, y), (x_test, y_test) = everything(digits.train), everything(digits.test)

# A model within the model: its layers have paths with a slash, such as `features/pointwise1`.
features = keras.Sequential(
    [
        layers.DepthwiseConv2D(3, padding="same", name="depthwise1"),
        layers.Conv2D(32, 1, activation="relu", name="pointwise1"),
        layers.MaxPooling2D(),
        layers.DepthwiseConv2D(3, padding="same", name="depthwise2"),
        layers.Conv2D(48, 1, activation="relu", name="pointwise2"),
    ],
    name="features",
)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        layers.Conv2D(16, 3, padding="same", activation="relu", name="stem"),
        features,
        layers.Flatten(),
        layers.Dense(48, activation="relu", name="hidden"),
        layers.Dense(10, name="logits"),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
model.fit(x, y, epochs=EPOCHS, verbose=0)

# The first rule whose expression is found in a path decides, so narrow rules come before wide ones.
# Layers without a rule get `kernel` and `inputs`. A rule that matches nothing is an error: a slip
# in a name is found out now, not in the size of the file.
q = kb.quantize_model(
    model,
    kernel=kb.BitPruning(strength=0.1),
    inputs=kb.Uniform(bits=8),
    rules={
        # Fixed width, learned range.
        "^stem$": kb.Rule(kernel=kb.Uniform(bits=8), inputs=kb.Uniform(bits=8)),
        # A width for each channel; the inputs learn theirs, too.
        "depthwise": kb.Rule(
            kernel=kb.BitPruning(strength=0.1, granularity="channel"),
            inputs=kb.BitPruning(strength=0.1),
        ),
        # Gates choose among 2, 4, 8, 16 and 32 bits, and drop whole neurons. They close late and
        # at once, so the bits stay high for some epochs, and then are low.
        "^hidden$": kb.Rule(kernel=kb.BayesianBits(strength=0.03), inputs=kb.Uniform(bits=8)),
        # Stays as it is.
        "^logits$": None,
    },
    strict=True,  # a layer with a kernel that has no quantized form is an error, too
)
kb.calibrate(q, x[:256])
before = kb.report(q)

q.compile("adam", loss, metrics=["accuracy"])
q.fit(x, y, epochs=EPOCHS, verbose=0, callbacks=[kb.callbacks.Progress()])
kb.freeze(q)
q.fit(x, y, epochs=EPOCHS // 2 or 1, verbose=0, callbacks=[kb.callbacks.Progress()])
after = kb.report(q)

# A report has a row for each layer with a kernel. Bits are the mean over its channels, where a
# dropped one counts as 0. `to_html`, `to_csv` and `to_json` write a report down.
print(f"\n{'layer':<22}{'kernel':<14}{'bits before':>12}{'after':>8}{'dropped':>9}{'bytes':>8}")
for old, new in zip(before.rows, after.rows, strict=True):
    print(
        f"{new.name:<22}{new.method:<14}{old.bits:>12.2f}{new.bits:>8.2f}"
        f"{new.dropped_channels:>9}{new.bytes:>8,}"
    )
after.to_html("mixed_precision.html")

for name, m, cost in ("float", model, after.float_bytes), ("mixed", q, after.weight_bytes):
    print(f"{name}: {m.evaluate(x_test, y_test, verbose=0)[1]:.1%}, {cost:,} bytes of kernels")
