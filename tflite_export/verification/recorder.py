"""What flows into and out of the quantized layers of a model while it runs."""

from __future__ import annotations

import dataclasses

import numpy as np
from keras import ops

from tflite_export.collect import PackedModel
from tflite_export.graph import Call


@dataclasses.dataclass(frozen=True)
class Use:
    """One use of a quantized layer: what it reads, and what it gives, a folded batch norm
    included."""

    x: np.ndarray
    y: np.ndarray


class Recorder:
    """Runs the calls of a replayed graph and keeps the uses of each quantized layer in order."""

    def __init__(self, packed: PackedModel):
        self.uses: dict[str, list[Use]] = {path: [] for path in packed.layers}
        self._folded = {
            id(collected.batch_norm): path
            for path, collected in packed.layers.items()
            if collected.batch_norm is not None
        }

    def __call__(self, call: Call, args: tuple, kwargs: dict):
        """Run one call as the model does."""
        result = call.run(call.layer, args, kwargs)
        if call.path in self.uses:
            x, y = (ops.convert_to_numpy(t) for t in (args[0], result))
            self.uses[call.path].append(Use(x, y))
        elif id(call.layer) in self._folded:  # which has one use, right behind its layer
            uses = self.uses[self._folded[id(call.layer)]]
            uses[-1] = dataclasses.replace(uses[-1], y=ops.convert_to_numpy(result))
        return result
