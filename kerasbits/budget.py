"""What the callback `Budget` does, for `keras.callbacks` and for those of tf_keras alike."""

from __future__ import annotations

import math
import warnings

from kerasbits import sites
from kerasbits.between_epochs import OfOneKeras
from kerasbits.quantizers.base import Quantizer
from kerasbits.report import Report, report

GAIN = 1.5
"""The pressure grows by this power of the cost over the aim, an epoch."""

LOOKAHEAD = 2.0
"""Epochs that the last change of the cost is thought to go on for."""

FACTORS = (0.3, 4.0)
"""Least and largest change of the pressure in one epoch."""

PRESSURES = (1e-2, 1e4)
"""Least and largest. The least is near, so that the way back from it is short."""

AIM = 0.92
"""Part of the budget that is steered to, since whole bits come in steps."""


class MeetingBudget(OfOneKeras):
    """Steer the strengths so that the frozen model costs no more than a budget.

    After each epoch the cost that the model would have if it were frozen then is compared with
    the budget: `pressure *= clip((cost / (0.92 budget) * trend^2)^1.5, 0.3, 4)`, where the trend is
    the cost as it stands over that of the epoch before. The losses of the quantizers are `pressure`
    times what their `strength` says. With a budget of bytes that is so for kernels, with one of bit
    operations for inputs, too; with both, what is exceeded most counts. Give it ten epochs or more.

    Methods differ in whether bits come back: those of BSQ that are gone do not, so begin with a
    small strength there. Freeze when the epochs are over, or by `FreezeBits`; from then on nothing
    is steered. If training ends above the budget, a warning says by how much. A further `fit` with
    the same callback goes on with its pressure.

    Logs `pressure` and `frozen_kib` for the callbacks behind it.

    Args:
        size: bytes of all kernels in a packed file (`report.weight_bytes`), None for no limit.
        bops: bit operations a sample (`report.bops`), None for no limit.

    Raises:
        ValueError: neither is given, or one is no positive number; when training begins: no
            quantizer there learns bits, or the layers that learn none are too large by themselves.

    Example:
        q.fit(x, y, epochs=20, callbacks=[kb.callbacks.Budget(size=24 * 1024)])
        kb.freeze(q)
    """

    def __init__(self, size: float | None = None, bops: float | None = None):
        super().__init__()
        if size is None and bops is None:
            raise ValueError("Budget: expected size or bops, got neither")
        for name, value in (("size", size), ("bops", bops)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < math.inf):
                raise ValueError(f"Budget: expected {name} > 0, got {value!r}")
        self.size, self.bops = size, bops
        self.pressure = 1.0

    def on_train_begin(self, logs=None):
        """See what can be steered."""
        sites.check_quantized(self.model, "Budget")
        self._places = [place for place in sites.places(self.model) if self._is_steered(place)]
        if not self._places:
            raise ValueError(
                f"Budget: expected quantizers that learn bits, got none in '{self.model.name}'"
            )
        self._check_rest()
        self._last = None

    def on_epoch_begin(self, epoch, logs=None):
        """Set the pressure; other callbacks may have set the shares anew."""
        sites.set_shares(self.model)
        for place in self._places:
            place.host.set_share(place.host.site.share * self.pressure)

    def on_epoch_end(self, epoch, logs=None):
        """Compare with the budget and change the pressure."""
        found = report(self.model, frozen=True)
        trend, now = 1.0, self._excess(report(self.model))
        if self._last is not None:
            trend = max(now, 1e-9) / max(self._last, 1e-9)
        self._last = now
        factor = (max(self._excess(found), 1e-9) / AIM * trend**LOOKAHEAD) ** GAIN
        self.pressure *= min(max(factor, FACTORS[0]), FACTORS[1])
        self.pressure = min(max(self.pressure, PRESSURES[0]), PRESSURES[1])
        if logs is not None:
            logs["pressure"], logs["frozen_kib"] = self.pressure, found.weight_bytes / 1024

    def on_train_end(self, logs=None):
        """Take the pressure away, and say if the budget is not met.

        Warns:
            UserWarning: the model costs more, with the numbers.
        """
        sites.set_shares(self.model)
        found = report(self.model, frozen=True)
        if self._excess(found) <= 1:
            return
        limits = [] if self.size is None else [f"{found.weight_bytes:,} bytes of {self.size:,.0f}"]
        limits += (
            [] if self.bops is None else [f"{found.bops:,.0f} bit operations of {self.bops:,.0f}"]
        )
        warnings.warn(
            f"Budget: frozen now, '{self.model.name}' would take {', '.join(limits)}; train "
            "longer, or begin with a higher strength",
            stacklevel=2,
        )

    def _excess(self, found: Report) -> float:
        """Cost over budget, of what is exceeded most."""
        parts = [] if self.size is None else [found.weight_bytes / self.size]
        return max(parts + ([] if self.bops is None else [found.bops / self.bops]))

    def _is_steered(self, place) -> bool:
        learns = type(place.quantizer).loss is not Quantizer.loss
        return learns and (place.role == "kernel" or self.bops is not None)

    def _check_rest(self) -> None:
        if self.size is None:
            return
        learned = {place.path for place in self._places if place.role == "kernel"}
        found = report(self.model)
        rest = sum(row.bytes for row in found.rows if row.name not in learned)
        if rest > self.size:
            raise ValueError(
                f"Budget: expected a size above what layers take that learn no bits, {rest:,} "
                f"bytes, got {self.size:,.0f}"
            )
