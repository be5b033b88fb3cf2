"""Statistics of a batch that lies on two replicas, by a stand-in for TensorFlow's context."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasbits import replicas
from kerasbits.maths.least_squares import average_scales
from kerasbits.quantizers import BitPruning, Site, Uniform

INPUT = Site("layer", "input", (3,), None)


class Second:
    """The second of two replicas; what the first one sends is known."""

    num_replicas_in_sync = 2
    replica_id_in_sync_group = 1

    def __init__(self, first):
        self.first = first

    def all_reduce(self, operation, values):
        assert operation == "SUM"
        if isinstance(values, list):
            return [a + b for a, b in zip(values, self.first, strict=True)]
        assert not np.any(ops.convert_to_numpy(values)[0])  # the row of the other
        return values + np.stack([np.float32(self.first), np.zeros_like(np.float32(self.first))])


@pytest.fixture
def second(monkeypatch):
    def begin(first):
        monkeypatch.setattr(replicas, "_context", lambda: Second(first))

    return begin


def test_a_single_replica_gets_its_own_values():
    a, b = ops.ones(3), ops.zeros(3)
    assert not replicas.several()
    assert replicas.largest(a, b)[0] is a
    assert replicas.total(a, b)[1] is b


def test_largest_and_total(second):
    second([3.0, -7.0])
    assert replicas.several()
    low, high = replicas.largest(ops.convert_to_tensor(-1.0), ops.convert_to_tensor(-2.0))
    assert (float(low), float(high)) == (3.0, -2.0)
    assert [float(v) for v in replicas.total(ops.ones(()), ops.ones(()))] == [4.0, -6.0]


def test_negative_infinity_of_an_empty_part_counts_for_nothing(second):
    second([-np.inf])
    (found,) = replicas.largest(ops.convert_to_tensor(-5.0))
    assert float(found) == -5.0


def test_the_range_of_a_batch_is_that_of_both_parts(second):
    method = BitPruning()
    state = {"bits": 8.0, "fixed_bits": -1.0, "lo": 0.0, "hi": 0.0, "seen": 0.0}
    state = {name: ops.convert_to_tensor(value) for name, value in state.items()}
    part = ops.convert_to_tensor([[-1.0, 0.5, 2.0]])
    second([4.0, 1.0, 0.0, 1.0])  # the other part: -4 to 1, finite, not all zero
    found = {name: float(value) for name, value in method.observe(part, state, INPUT).items()}
    assert found == {"lo": -4.0, "hi": 2.0, "seen": 1.0}
    second([4.0, 1.0, 1.0, 1.0])  # the other part has NaN: nothing is learned of the batch
    assert float(method.observe(part, state, INPUT)["seen"]) == 0.0


def test_the_first_batch_sets_the_range_without_a_condition(second, monkeypatch):
    """What replicas exchange must not be under a condition."""
    monkeypatch.setattr(ops, "cond", None)
    method = Uniform(4)
    state = {name: ops.convert_to_tensor(np.float32(spec.initial))
             for name, spec in method.variables(INPUT).items()}  # fmt: skip
    second([3.0, 0.0, 0.0])  # the other part: up to 3, finite, nothing below 0
    part = ops.convert_to_tensor([[0.0, 0.25, 0.55]])
    y, updates = method.apply(part, state, INPUT, training=True)
    assert float(updates["range_unit"]) == 3.0
    np.testing.assert_allclose(ops.convert_to_numpy(y), [[0.0, 0.2, 0.6]], atol=1e-6)  # steps 0.2
    state["seen"] += 1.0
    _, updates = method.apply(part, state, INPUT, training=True)
    assert float(updates["range_unit"]) == 1.0


def test_running_scales_weigh_samples_not_replicas():
    batch = ops.convert_to_tensor([[1.0], [3.0], [np.nan]])
    args = (ops.zeros((1,)), ops.zeros(()), batch, 0.9)
    alone, _ = average_scales(*args)
    # Elsewhere are two samples, of 5 and 6.
    both, steps = average_scales(*args, total=lambda count, sums: (count + 2, sums + 11.0))
    assert (float(alone[0]), float(both[0]), float(steps)) == (2.0, 3.75, 1.0)


def test_no_strategy_without_tensorflow(monkeypatch):
    monkeypatch.delitem(replicas.sys.modules, "tensorflow")
    assert not replicas.several()


def test_a_strategy_of_one_replica_is_none():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        assert not replicas.several()
        (found,) = replicas.largest(ops.ones(()))
    assert float(found) == 1.0
    assert keras.backend.backend() == "tensorflow"
