"""Each test starts from the same random state, whatever ran before it in its process."""

import keras
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Before the fixtures, so that what they draw repeats too."""
    keras.utils.set_random_seed(0)
