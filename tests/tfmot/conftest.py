"""tfmot switches `tf.keras` for its process, and for those it starts by a variable.

The variable goes again, because tests of other folders start processes of their own.
"""

import os

SWITCH = "TF_USE_LEGACY_KERAS"

before = os.environ.get(SWITCH)
import kerasbits.tfmot  # noqa: E402, F401 (what sets the variable)

if before is None:
    os.environ.pop(SWITCH, None)
