"""The loss of a quantizer belongs to its variables, not to calls of a layer."""

import keras
import numpy as np

from kerasbits.layers import QuantDense
from kerasbits.quantizers import BitPruning


def shared():
    """A layer that is called twice."""
    inputs = keras.Input((4,))
    layer = QuantDense(4, kernel_quantizer=BitPruning(bits=4, strength=0.5))
    return keras.Model(inputs, layer(layer(inputs)))


def test_a_shared_layer_counts_once():
    model = shared()
    assert [float(loss) for loss in model.losses] == [2.0]  # strength 0.5, 4 bits
    model(np.ones((2, 4), np.float32))
    assert [float(loss) for loss in model.losses] == [2.0]


def test_what_is_not_trained_has_none():
    model = shared()
    model.trainable = False
    assert model.losses == []
    model.trainable = True
    assert len(model.losses) == 1


def test_a_loaded_model_has_its_loss(tmp_path):
    model = shared()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [float(loss) for loss in again.losses] == [2.0]
