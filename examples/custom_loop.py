"""Learned bits in a training loop of your own, with the `GradientTape` of TensorFlow.

    python examples/custom_loop.py [epochs]

Quantized layers want four things of a loop. `model.fit` does the first three, and the callback
`kb.callbacks.AdjustBits` the last:

1. add `model.losses` to the loss: the price of the bits, without which they have no reason to fall;
2. call the model with `training=True`, so that running ranges are updated and gates are drawn;
3. step with a Keras optimizer: it keeps variables such as the bits within their limits;
4. call `kb.adjust` between epochs, for methods that drop what became empty (BSQ), and tell it your
   optimizer.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from datasets import Batches, everything, load  # of examples/datasets; digits need no download
from keras import layers

import kerasbits as kb

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 15  # 15 take half a minute
TUNED_EPOCHS = EPOCHS // 3 or 1  # the last ones, with whole bits

keras.utils.set_random_seed(0)
digits = load("digits", validation=0)
x_test, y_test = everything(digits.test)
batches = Batches(digits.train, batch_size=32, seed=0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
        layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10, name="logits"),
    ]
)

# BSQ trains every bit of every weight: bit planes take the place of a kernel among
# `trainable_variables`. It starts with 8 of them and the sign, 9 bits. The model may be untrained.
q = kb.quantize_model(model, kernel=kb.BSQ(strength=1e-2), inputs=kb.Uniform(bits=8))
kb.calibrate(q, batches.batch(0)[0])

# `kb.adjust` and `kb.freeze` rewrite variables, and set the momentum that belonged to the old
# values to zero. A compiled model knows its optimizer; this one is not compiled, so they get it.
optimizer = keras.optimizers.Adam(1e-3)
loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@tf.function
def train_step(images, labels):
    """One step; the loss of the task and the price of the bits."""
    with tf.GradientTape() as tape:
        logits = q(images, training=True)
        task = loss_function(labels, logits)
        price = tf.add_n(q.losses)  # inside the tape, and after the call that makes them
        loss = task + price
    gradients = tape.gradient(loss, q.trainable_variables)
    optimizer.apply(gradients, q.trainable_variables)
    return task, price


for epoch in range(EPOCHS):
    if epoch == EPOCHS - TUNED_EPOCHS:
        # Being frozen is state, not code: `train_step` is not traced again, and from here on each
        # price is 0 and the bits stay.
        kb.freeze(q, optimizer)
    first = epoch * batches.steps_per_epoch
    results = [
        train_step(*batches.batch(step)) for step in range(first, first + batches.steps_per_epoch)
    ]
    kb.adjust(q, optimizer)  # drops the planes that are empty, and leaves the weights as they are
    task, price = np.mean(results, axis=0)
    right = np.mean(np.argmax(q(x_test), -1) == y_test)
    print(
        f"epoch {epoch + 1:>2}: loss {task:.3f}, price of bits {price:.3f}, "
        f"{kb.report(q).average_bits:.2f} bits, {right:.1%} of the test digits right"
    )

kb.summary(q)

# On JAX do the same in the loop of Keras's guide: `q.stateless_call(..., training=True,
# return_losses=True)` hands you the price, and `optimizer.stateless_apply` steps. Assign the values
# to the variables of model and optimizer before `kb.adjust` and `kb.freeze`, and read them again
# afterwards.
