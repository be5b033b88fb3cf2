"""The laws of the state every quantizer obeys, for each quantizer and role of the contract."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from contract_states import (
    INPUTS,
    WEIGHTS,
    frozen,
    prepared,
    run,
    scattered,
    site_of,
    ulps,
)
from keras import ops
from quantizer_states import initial_state, updated
from quantizers.test_contract import CASES, label


@pytest.mark.parametrize(
    ("quantizer", "role", "data"),
    [
        pytest.param(q, role, data, id=f"{label(q)}-{role}")
        for q, roles in CASES
        for role, data in (("kernel", WEIGHTS["conv"]), ("input", INPUTS["signed"]))
        if role in roles
    ],
)
class TestState:
    """Laws of the state, for each quantizer and role."""

    @pytest.mark.parametrize("stage", ["initial", "scattered"])
    def test_freeze(self, quantizer, role, data, stage):
        site, state = prepared(quantizer, role, data, stage)
        adjusted = updated(state, quantizer.adjust(state, site))
        for start in (state, adjusted):
            once = frozen(quantizer, site, start)
            twice = frozen(quantizer, site, once)
            for name in once:
                np.testing.assert_array_equal(once[name], twice[name], err_msg=name)
            widths = np.asarray(quantizer.widths(once, site))
            np.testing.assert_array_equal(widths, np.round(widths))
            # A frozen quantizer has nothing left to drop.
            for name, value in quantizer.adjust(once, site).items():
                np.testing.assert_array_equal(once[name], value, err_msg=name)

    @pytest.mark.parametrize("stage", ["initial", "scattered"])
    def test_bits_stay_when_the_trained_state_moves_on(self, quantizer, role, data, stage):
        site, state = prepared(quantizer, role, data, stage)
        state = frozen(quantizer, site, state)
        widths = np.asarray(quantizer.widths(state, site))
        moved = scattered(quantizer, site, state, spread=1.5)
        np.testing.assert_array_equal(np.asarray(quantizer.widths(moved, site)), widths)
        again = frozen(quantizer, site, moved)
        np.testing.assert_array_equal(np.asarray(quantizer.widths(again, site)), widths)

    def test_loss_is_silent_once_frozen(self, quantizer, role, data):
        site, state = prepared(quantizer, role, data, "scattered")
        for now in (state, frozen(quantizer, site, state)):
            tensors = {name: tf.constant(value) for name, value in now.items()}
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                loss = quantizer.loss(tensors, site)
                if loss is None:
                    return
                loss = loss * 1.0
            assert loss.shape == ()
            assert np.isfinite(loss)
            gradients = [g for g in tape.gradient(loss, tensors).values() if g is not None]
            if now is state:
                assert loss > 0
                start = quantizer.loss(prepared(quantizer, role, data, "initial")[1], site)
                assert any(np.any(g) for g in gradients) == (float(loss) != float(start))
            else:
                assert loss == 0
                assert not any(np.any(g) for g in gradients)

    def test_strength_scales_the_loss(self, quantizer, role, data):
        site, state = prepared(quantizer, role, data, "initial")
        if not hasattr(quantizer, "strength"):
            assert quantizer.loss(state, site) is None
            return
        double = dataclasses.replace(quantizer, strength=2 * quantizer.strength)
        once, twice = (float(q.loss(state, site)) for q in (quantizer, double))
        assert twice == pytest.approx(2 * once, rel=1e-6)

    @pytest.mark.parametrize(("mode", "training"), [("graph", True), ("jit", True), ("jit", False)])
    def test_graph_and_jit_equal_eager(self, quantizer, role, data, training, mode):
        site, state = prepared(quantizer, role, data, "initial")
        kwargs = {"training": training, "seed": 3}
        got, other = run(quantizer, data, state, site, mode, **kwargs)
        if training and quantizer.stochastic and getattr(quantizer, "noise", True):
            assert np.isfinite(got).all()  # compiled random numbers are others
            return
        want, updates = run(quantizer, data, state, site, **kwargs)
        # Sums of interpolated grids round a few times more than a single grid. Scales that are
        # solved from the batch may carry a value that lies on a border across it.
        close = np.abs(got - want) <= 8 * ulps(want)
        assert close.mean() > 0.95 if training and role == "input" else close.all()
        assert other.keys() == updates.keys()
        for name in updates:
            np.testing.assert_allclose(other[name], updates[name], rtol=1e-5, err_msg=name)

    def test_gradients_are_finite_and_reach_what_is_trained(self, quantizer, role, data):
        site, state = prepared(quantizer, role, data, "initial")
        x = tf.constant(data)
        tensors = {name: tf.constant(value) for name, value in state.items()}
        g = tf.constant(np.random.default_rng(5).normal(size=data.shape).astype(np.float32))
        with tf.GradientTape() as tape:
            tape.watch([x, tensors])
            y, _ = quantizer.quantize(x, tensors, site, training=True, seed=1)
            total = tf.reduce_sum(g * y)
        dx, ds = tape.gradient(total, [x, tensors])
        if quantizer.owns_weight:
            assert dx is None
        else:
            assert np.isfinite(dx).all()
            assert np.any(dx)
        for name, spec in quantizer.variables(site).items():
            if spec.trainable and ds[name] is not None:
                assert np.isfinite(ds[name]).all(), name

    def test_updates_are_of_untrained_variables(self, quantizer, role, data):
        """JAX forbids assigning trained variables in a forward pass."""
        site, state = prepared(quantizer, role, data, "initial")
        specs = quantizer.variables(site)
        start = initial_state(quantizer, site, data)  # an input that has seen nothing
        for begin in (state, start):
            tensors = {name: ops.convert_to_tensor(value) for name, value in begin.items()}
            _, updates = quantizer.apply(
                ops.convert_to_tensor(data), tensors, site, training=True, seed=2
            )
            updated(begin, updates)  # names and shapes are declared
            assert all(not specs[name].trainable for name in updates)
            quiet = quantizer.apply(ops.convert_to_tensor(data), tensors, site, training=False)[1]
            assert quiet == {}

    def test_observed_state(self, quantizer, role, data):
        site, state = prepared(quantizer, role, data, "initial")
        names = quantizer.observed(site)
        assert set(quantizer.observe(ops.convert_to_tensor(data), state, site)) == set(names)
        assert role == "input" or not names
        assert all(not quantizer.variables(site)[name].trainable for name in names)

    def test_share(self, quantizer, role, data):
        site = site_of(role, data)
        other = dataclasses.replace(site, name="other", macs=3 * site.macs)
        for sites in ([site], [site, other], [dataclasses.replace(site, macs=0)]):
            shares = [quantizer.share(s, sites) for s in sites]
            assert all(np.isfinite(share) and share >= 0 for share in shares)
            assert max(shares) > 0

    def test_nan_is_refused(self, quantizer, role, data):
        site, state = prepared(quantizer, role, data, "initial")
        state = frozen(quantizer, site, state)
        if role == "kernel" and not quantizer.owns_weight:
            for bad in (np.nan, np.inf):
                w = data.copy()
                w.flat[3] = bad
                with pytest.raises(
                    ValueError, match=r"layer 'block/fc', kernel: expected .*finite"
                ):
                    quantizer.encode(w, state, site)
        elif role == "kernel":
            broken = {name: np.full_like(value, np.nan) for name, value in state.items()}
            with pytest.raises(ValueError, match=r"layer 'block/fc', kernel: expected .*finite"):
                quantizer.encode(data, broken, site)
        elif quantizer.observed(site):
            unseen = initial_state(quantizer, site)
            with pytest.raises(ValueError, match="layer 'block/fc', input: expected"):
                quantizer.grid(frozen(quantizer, site, unseen), site)
