"""kerasbits for tf_keras and tfmot (Keras 2): the same methods in the wrappers of tfmot.

Importing it makes `tf.keras` mean tf_keras in this process, as importing tfmot does.

Example:
    import tf_keras
    from kerasbits import tfmot as kb_tfmot
    q = kb_tfmot.quantize_model(model, kernel="bitpruning", inputs="uniform")
    q.compile(...); q.fit(..., callbacks=[kb_tfmot.callbacks.LogBits()])
    kerasbits.freeze(q)
"""

from kerasbits.tfmot import installed  # noqa: F401

# isort: split

from kerasbits.tfmot import callbacks
from kerasbits.tfmot.annotate import (
    quantize_annotate_layer,
    quantize_annotate_model,
    quantize_apply,
    quantize_scope,
)
from kerasbits.tfmot.config import KerasbitsQuantizeConfig
from kerasbits.tfmot.keras3 import to_keras3
from kerasbits.tfmot.loading import load_model
from kerasbits.tfmot.model import quantize_model
from kerasbits.tfmot.quantizer import KerasbitsQuantizer
from kerasbits.tfmot.scheme import KerasbitsQuantizeScheme
from kerasbits.tfmot.wrapper import KerasbitsQuantizeWrapper

__all__ = [
    "KerasbitsQuantizeConfig",
    "KerasbitsQuantizeScheme",
    "KerasbitsQuantizeWrapper",
    "KerasbitsQuantizer",
    "callbacks",
    "load_model",
    "quantize_annotate_layer",
    "quantize_annotate_model",
    "quantize_apply",
    "quantize_model",
    "quantize_scope",
    "to_keras3",
]
