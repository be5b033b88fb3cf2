"""The regularizer of BitPruning, and what the bits learn from it."""

import golden_files
import numpy as np
import pytest
import tensorflow as tf
from quantizer_states import initial_state
from quantizers.bitpruning_for_tests import CONV, KERNEL, tensors

from kerasbits.quantizers.base import Site
from kerasbits.quantizers.bitpruning import BitPruning


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_loss_and_its_gradient(granularity):
    quantizer = BitPruning(5.0, strength=0.3, granularity=granularity)
    site = Site("conv", "kernel", KERNEL.shape, -1, share=0.25)
    state = initial_state(quantizer, site)
    n = np.float32([2.0, 3.0, 4.5, 0.5]) if granularity == "channel" else np.float32(3.5)
    state["bits"] = n
    state = tensors(state)
    with tf.GradientTape() as tape:
        tape.watch(state)
        loss = quantizer.loss(state, site)
    assert loss.shape == ()
    # A mean of four float32 numbers.
    assert float(loss) == pytest.approx(0.3 * 0.25 * np.clip(n, 1, 16).mean(), rel=1e-6)
    gradient = tape.gradient(loss, state["bits"])
    np.testing.assert_allclose(gradient, np.full(n.shape, 0.3 * 0.25 / n.size), rtol=1e-6)


def test_share_may_be_a_tensor():
    site = Site("conv", "kernel", KERNEL.shape, -1, share=tf.constant(0.5))
    loss = BitPruning(8.0, strength=1.0).loss(tensors(initial_state(BitPruning(), site)), site)
    assert float(loss) == 4.0


def test_without_a_task_all_bits_reach_one():
    quantizer = BitPruning(4.0, strength=1.0, granularity="channel")
    n = tf.Variable([4.0, 3.0, 1.2, 1.0])
    state = tensors(initial_state(quantizer, CONV))
    for _ in range(150):
        with tf.GradientTape() as tape:
            loss = quantizer.loss({**state, "bits": n * 1.0}, CONV)
        n.assign(tf.clip_by_value(n - 0.1 * tape.gradient(loss, n), 1.0, 16.0))
    np.testing.assert_array_equal(n, 1.0)


SITES = [
    Site("a", "kernel", (3, 3, 2, 4), -1, macs=300),
    Site("a", "input", (5, None, 2), None, macs=300),
    Site("b", "kernel", (10, 2), -1, macs=20),
]


@pytest.mark.parametrize(
    ("cost", "want"),
    [
        ("average", [1 / 3, 1 / 3, 1 / 3]),
        ("macs", [300 / 620, 300 / 620, 20 / 620]),
        ("footprint", [72 / 102, 10 / 102, 20 / 102]),
    ],
)
def test_shares_sum_to_one(cost, want):
    shares = [BitPruning(cost=cost).share(s, SITES) for s in SITES]
    assert shares == pytest.approx(want, rel=1e-12)
    assert sum(shares) == pytest.approx(1, rel=1e-12)


def test_shares_when_nothing_can_be_counted():
    unknown = [Site("a", "kernel", (2, 2)), Site("b", "kernel", (2, 2))]
    assert [BitPruning(cost="macs").share(s, unknown) for s in unknown] == [0.5, 0.5]
    assert BitPruning(cost="macs").share(unknown[0], []) == 1.0


def test_golden_footprint_and_average_shares():
    arrays = golden_files.load("bitpruning")
    sites = [Site(str(i), "kernel", (int(n), 1)) for i, n in enumerate(arrays["reg_numel"])]
    for cost in ("average", "footprint"):
        shares = [BitPruning(cost=cost).share(s, sites) for s in sites]
        np.testing.assert_allclose(shares, arrays[f"reg_{cost}_lambda"], rtol=1e-12)  # one division


def test_bits_learn_what_precision_the_task_needs():
    """Descent on the rounding error plus a little regularizer: fewer bits for a coarse kernel."""
    fine, coarse = KERNEL.reshape(-1, 1), np.sign(KERNEL).reshape(-1, 1)
    learned = []
    for w in (fine, coarse):
        site = Site("w", "kernel", w.shape, -1)
        quantizer = BitPruning(3.5, strength=0.02)
        state = tensors(initial_state(quantizer, site))
        n = tf.Variable(3.5)
        for _ in range(60):
            with tf.GradientTape() as tape:
                now = {**state, "bits": n * 1.0}
                y, _ = quantizer.quantize(w, now, site, training=True)
                loss = tf.reduce_mean((y - w) ** 2) + quantizer.loss(now, site)
            n.assign(tf.clip_by_value(n - 2.0 * tape.gradient(loss, n), 1.0, 16.0))
        learned.append(float(n))
    assert learned[1] == pytest.approx(1.1, abs=0.2)
    assert learned[0] > learned[1] + 0.5
