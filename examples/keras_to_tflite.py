"""From a .keras file to the files that an app ships.

    python examples/keras_to_tflite.py [epochs]

There are two ways. Without training: 8 bits everywhere, from the model and some inputs. With a
short training: as few bits as each layer needs. And there are three kinds of files:

| file | run by |
|---|---|
| stock .tflite | TFLite or LiteRT as it is |
| packed .tflite | the same, with our library loaded as a delegate |
| .kbits | our C library alone: an app without TFLite, or a board |
"""

import pathlib
import sys

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate
from datasets import everything, load  # of examples/datasets; digits need no download
from keras import layers

import kerasbits as kb
import tflite_export

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 10  # 10 take half a minute

# The model as you have it: trained in float, saved by `model.save`.
keras.utils.set_random_seed(0)
digits = load("digits", validation=0)
(x, y), (x_test, y_test) = everything(digits.train), everything(digits.test)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trained_model():
    """A convolution with batch norm, and dense layers: digits of 8x8 pixels to ten scores."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="hidden"),
            layers.Dense(10, name="scores"),
        ]
    )
    model.compile("adam", loss)
    model.fit(x, y, epochs=EPOCHS, verbose=0)
    return model


trained_model().save("digits.keras")

# 1. Without training. `calibrate` sets the ranges of the inputs from data, `freeze` says that the
#    bits are final. With `activations="int8"` the runtime computes in whole numbers, its fastest
#    way; ranges between layers are then read off the sample, which should be real data.
model = keras.models.load_model("digits.keras")
q8 = kb.quantize_model(model, kernel=kb.Uniform(bits=8), inputs=kb.Uniform(bits=8))
kb.calibrate(q8, x[:256])
kb.freeze(q8)
tflite_export.export(q8, "digits_int8.tflite", profile="stock", activations="int8", sample=x[:256])

# 2. With training. This is examples/ten_lines.py again.
q = kb.quantize_model(model, kernel=kb.BitPruning(bits=6, strength=0.2), inputs=kb.Uniform(bits=8))
kb.calibrate(q, x[:256])
q.compile("adam", loss, metrics=["accuracy"])
q.fit(x, y, epochs=EPOCHS, verbose=0, callbacks=[kb.callbacks.Progress()])
kb.freeze(q)
q.fit(x, y, epochs=EPOCHS // 2 or 1, verbose=0, callbacks=[kb.callbacks.Progress()])
q.save("digits_quantized.keras")

# 3. The files. Batch norm and ReLU become part of the layers before them. Each file is checked
#    against the model, layer by layer, before it gets its name. Printed, a result is a table.
print(tflite_export.export(q, "digits.tflite", sample=x[:64]))
# INT2 needs LiteRT 2.1, INT4 needs 1.0; with `narrowest=8` the file is larger, and all read it.
print(tflite_export.export(q, "digits_stock.tflite", profile="stock", sample=x[:64]))
print(tflite_export.export(q, "digits.kbits", sample=x[:64]))
pathlib.Path("digits_float.tflite").write_bytes(tflite_export.float_tflite(model))

# The same from a shell, where no Python program trained the model:
#
#     python -m tflite_export.convert --model=digits_quantized.keras --output=digits.tflite
#     python -m tflite_export.inspect digits.tflite


# 4. Run them as an app would: nothing of Keras, and of kerasbits the library alone.
def run_in_litert(path, images, delegates=()):
    """Scores by the LiteRT interpreter, as Google ships it."""
    interpreter = Interpreter(model_path=path, experimental_delegates=list(delegates))
    image, scores = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(image["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(image["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(scores["index"])


library = load_delegate(str(tflite_export.delegate_path()))
scores = {
    "digits_float.tflite": run_in_litert("digits_float.tflite", x_test),
    "digits_int8.tflite": run_in_litert("digits_int8.tflite", x_test),
    "digits_stock.tflite": run_in_litert("digits_stock.tflite", x_test),
    "digits.tflite": run_in_litert("digits.tflite", x_test, [library]),
    # Python's way to the C library that an app would link.
    "digits.kbits": tflite_export.Interpreter("digits.kbits").predict(x_test),
}
for name, found in scores.items():
    right = np.mean(found.argmax(-1) == y_test)
    print(f"{name:<20} {pathlib.Path(name).stat().st_size:>8,} bytes  {right:.1%} right")

# The three files of `q` compute what `q` computes, up to float rounding: a value right between two
# codes of an input may go either way.
expected = q.predict(x_test, verbose=0)
for name in ("digits_stock.tflite", "digits.tflite", "digits.kbits"):
    same = np.mean(scores[name].argmax(-1) == expected.argmax(-1))
    print(f"{name:<20} gives the class of the Keras model for {same:.1%} of the test digits")

# 5. Into the app. docs/linking.md builds the library by CMake and calls it from C, Kotlin, Java and
#    Swift; examples/classify.c is a whole program around a .kbits file; docs/runtimes.md says which
#    runtimes read which files, and docs/stock.md when to choose which options of a stock file.
