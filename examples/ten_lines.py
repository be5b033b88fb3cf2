"""Quantize a trained model in ten lines.

    pip install '.[export,examples]'
    python examples/ten_lines.py [epochs]

A weight of a Keras model takes 32 bits. Most layers work as well with two to eight, but which
layer needs how many, nobody knows beforehand. kerasbits makes the number of bits of a layer a
variable that is trained together with the weights, while a small price for each bit, added to the
loss, pulls it down. You go on using `compile`, `fit`, `save` and `evaluate`.
"""

import sys

import keras
from datasets import everything, load  # of examples/datasets; digits need no download
from keras import layers

import kerasbits as kb
from tflite_export import Interpreter, export

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 12  # 12 take half a minute

# What you have already: data, and a trained model. Here it learns handwritten digits of 8x8 pixels.

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

# 1. A copy of the model whose layers round their kernels and inputs; `model` stays as it is.
#    Kernels start at 8 bits and learn to do with less; the higher `strength`, the higher the price
#    of a bit. Inputs have 8 bits and learn their range.
q = kb.quantize_model(model, kernel=kb.BitPruning(strength=0.2), inputs=kb.Uniform(bits=8))
# 2. How large the inputs of each layer become, is read off some data.
kb.calibrate(q, x[:256])
# 3-4. Train as ever. `Progress` prints a line an epoch, in which you see the bits fall. They are
#    real numbers now: at 3.4 bits a layer computes with a mixture of its kernel in 3 and in 4.
q.compile("adam", loss, metrics=["accuracy"])
q.fit(x, y, epochs=EPOCHS, verbose=0, callbacks=[kb.callbacks.Progress()])
# 5-6. Make the bits whole, for good, and let the weights get used to them.
kb.freeze(q)
q.fit(x, y, epochs=EPOCHS // 2 or 1, verbose=0, callbacks=[kb.callbacks.Progress()])
# 7. What each layer has learned to need.
kb.summary(q)
# 8. A Keras model like any other; `load_model` reads it wherever kerasbits is imported.
q.save("digits_quantized.keras")
# 9. One small file, which is checked against the model, layer by layer, before it gets its name.
result = export(q, "digits.tflite", sample=x[:64])
# 10. The file computes what the model computes.
logits = Interpreter("digits.tflite").predict(x_test)

for name, accuracy, size in [
    ("float model", model.evaluate(x_test, y_test, verbose=0)[1], kb.report(q).float_bytes),
    ("quantized file", (logits.argmax(-1) == y_test).mean(), result.weight_bytes),
]:
    print(f"{name:>14}: {accuracy:.1%} of the test digits right, {size:,} bytes of kernels")

# Next: examples/mixed_precision.py treats layers differently, examples/keras_to_tflite.py makes
# files for phones and boards. Methods other than BitPruning: the table in README.md.
