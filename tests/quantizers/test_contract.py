"""The laws every quantizer obeys. A new method adds its entries to CASES, and nothing else.

The laws of its state are in test_contract_state.py, which takes CASES from here.
"""

import collections
import dataclasses
import json

import keras
import numpy as np
import pytest
from contract_states import (
    INPUTS,
    WEIGHTS,
    frozen,
    prepared,
    run,
    site_of,
    ulps,
    whole_tensor_close,
)
from quantizer_states import initial_state

from kerasbits import packed
from kerasbits.quantizers import (
    BSQ,
    APoT,
    BayesianBits,
    BitPruning,
    LeastSquaresBinary,
    Uniform,
)

KERNEL, INPUT, BOTH = ("kernel",), ("input",), ("kernel", "input")
CASES = [
    (Uniform(), BOTH),
    (Uniform(4, "channel"), KERNEL),
    (Uniform(1, signed=False), BOTH),
    (Uniform(2, signed=True), BOTH),
    (Uniform(16), BOTH),
    (BitPruning(), BOTH),
    (BitPruning(3.4, granularity="channel", cost="macs"), KERNEL),
    (BitPruning(2.5, rounding="round", zero_point="integer"), BOTH),
    (BitPruning(5.5, cost="footprint", range_mode="fixed", max_bits=6), BOTH),
    (LeastSquaresBinary(), BOTH),
    (LeastSquaresBinary("ls2", granularity="tensor", running="train_and_eval"), BOTH),
    (LeastSquaresBinary("lst", momentum=0.5), BOTH),
    (LeastSquaresBinary("gf", k=3, subsample=2), BOTH),
    (LeastSquaresBinary("gf", k=4, clamp=2.0), INPUT),
    (BSQ(), KERNEL),
    (BSQ(bits=2, max_bits=3, strength=0.1), KERNEL),
    (BSQ(bits=7, max_bits=7, clamp_forward=True), KERNEL),
    (APoT(), BOTH),
    (APoT(bits=2), BOTH),
    (APoT(bits=3), BOTH),
    (BayesianBits(), BOTH),
    (BayesianBits(max_bits=8, noise=False), BOTH),
    (BayesianBits(prune=False, cost="const", signed=True, cutoff=None), BOTH),
    (BayesianBits(min_bits=4, max_bits=4), BOTH),
]


def label(case):
    """`Uniform(bits=8)` without the fields that have their default."""
    changed = [
        f"{f.name}={getattr(case, f.name)}"
        for f in dataclasses.fields(case)
        if getattr(case, f.name) != f.default
    ]
    return f"{type(case).__name__}({','.join(changed)})"


QUANTIZERS = [pytest.param(q, id=label(q)) for q, _ in CASES]
KERNEL_CASES = [
    pytest.param(q, shape, stage, id=f"{label(q)}-{shape}-{stage}")
    for q, roles in CASES
    if "kernel" in roles
    for shape in WEIGHTS
    for stage in ("initial", "scattered")
]
INPUT_CASES = [
    pytest.param(q, data, stage, id=f"{label(q)}-{data}-{stage}")
    for q, roles in CASES
    if "input" in roles
    for data in INPUTS
    for stage in ("initial", "scattered")
]


# Compiling takes long: once for each quantizer and role.
MODES = collections.defaultdict(lambda: ("eager",))
MODES["conv", "scattered"] = MODES["signed", "scattered"] = ("eager", "jit")


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_config_survives_json(quantizer):
    config = keras.saving.serialize_keras_object(quantizer)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert again == quantizer
    assert type(again) is type(quantizer)
    assert config["registered_name"] == f"kerasbits>{type(quantizer).__name__}"


@pytest.mark.parametrize(
    ("method", "field"),
    [
        pytest.param(method, field, id=f"{method.__name__}.{field.name}")
        for method in dict.fromkeys(type(q) for q, _ in CASES)
        for field in dataclasses.fields(method)
    ],
)
def test_senseless_fields_are_refused_by_name(method, field):
    number = isinstance(field.default, float | int) and not isinstance(field.default, bool)
    for value in ("nonsense", float("nan"), [], *([float("inf"), True] if number else [])):
        with pytest.raises(ValueError, match=f"{method.__name__}: expected .*{field.name}"):
            method(**{field.name: value})


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_quantizers_are_values(quantizer):
    assert hash(quantizer) == hash(dataclasses.replace(quantizer))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(quantizer, dataclasses.fields(quantizer)[0].name, 0)


@pytest.mark.parametrize("shape", WEIGHTS)
@pytest.mark.parametrize("quantizer", [q for q, roles in CASES if "kernel" in roles], ids=label)
def test_declared_variables(quantizer, shape):
    site = site_of("kernel", WEIGHTS[shape])
    state = initial_state(quantizer, site, WEIGHTS[shape])
    for name, spec in quantizer.variables(site).items():
        assert np.isfinite(state[name]).all(), name
        assert spec.min is None or (state[name] >= spec.min).all(), name
        assert spec.max is None or (state[name] <= spec.max).all(), name
        # A power of two, so that the stored value is exact.
        assert np.frexp(spec.rate)[0] == 0.5, name
        assert spec.trainable or spec.rate == 1, name


@pytest.mark.parametrize(("quantizer", "shape", "stage"), KERNEL_CASES)
def test_codes_are_what_inference_uses(quantizer, shape, stage):
    w = WEIGHTS[shape]
    site, state = prepared(quantizer, "kernel", w, stage)
    state = frozen(quantizer, site, state)
    pack = quantizer.encode(w, state, site)
    decoded = pack.decode()
    assert pack.name == site.name
    assert pack.shape == w.shape
    assert decoded.dtype == np.float32
    for mode in MODES[shape, stage]:
        y, _ = run(quantizer, w, state, site, mode)
        # Codes are equal, as a step is far above 4 ulp; products may be rounded in another order.
        channels = tuple(range(w.ndim - 1))
        assert (np.abs(decoded - y) <= 4 * ulps(y, channels)).all(), mode


@pytest.mark.parametrize(("quantizer", "shape", "stage"), KERNEL_CASES)
def test_packed_bits(quantizer, shape, stage):
    w = WEIGHTS[shape]
    site, state = prepared(quantizer, "kernel", w, stage)
    state = frozen(quantizer, site, state)
    pack = quantizer.encode(w, state, site)
    widths = np.asarray(quantizer.widths(state, site))
    np.testing.assert_array_equal(np.broadcast_to(widths, site.channels), pack.bits)
    assert np.issubdtype(pack.bits.dtype, np.integer)
    if isinstance(pack.encoding, packed.Floats):
        assert pack.codes.size == 0
        return
    assert ((pack.bits >= 0) & (pack.bits <= packed.MAX_CODE_BITS)).all()
    assert pack.codes.dtype == np.uint16
    assert (pack.codes < 2**pack.bits).all()  # so dropped channels have codes 0
    if isinstance(pack.encoding, packed.Table | packed.Planes):
        assert len(set(pack.bits) - {0}) <= 1
    if isinstance(pack.encoding, packed.Table):
        assert len(pack.encoding.levels) <= 2 ** pack.bits.max()
    if isinstance(pack.encoding, packed.Planes):
        assert len(pack.encoding.plane_scale) == pack.bits.max()


@pytest.mark.parametrize(("quantizer", "data", "stage"), INPUT_CASES)
def test_input_grid_is_what_inference_uses(quantizer, data, stage):
    x = INPUTS[data]
    site, state = prepared(quantizer, "input", x, stage)
    state = frozen(quantizer, site, state)
    grid = quantizer.grid(state, site)
    assert float(quantizer.widths(state, site)) == grid.bits
    for mode in MODES[data, stage]:
        y, _ = run(quantizer, x, state, site, mode)
        if isinstance(grid, packed.FloatGrid):
            np.testing.assert_array_equal(y, np.clip(x, np.float32(grid.lo), np.float32(grid.hi)))
            continue
        codes = grid.codes(x)
        assert codes.dtype == np.uint16
        assert (codes < 2**grid.bits).all()
        # On a border the last bit decides, and the compiler may round it otherwise.
        clear = grid.border_distance(x) > 1e-6 * np.abs(x).max()
        assert clear.mean() > 0.4
        values = grid.values(codes)
        assert values.dtype == np.float32
        whole_tensor_close(np.where(clear, values, 0), np.where(clear, y, 0), 4)


@pytest.mark.parametrize(("quantizer", "roles"), [pytest.param(*c, id=label(c[0])) for c in CASES])
def test_roles_are_enforced(quantizer, roles):
    assert set(roles) <= set(quantizer.roles)
    if quantizer.roles == KERNEL:
        with pytest.raises(ValueError, match="layer 'block/fc', input: expected"):
            quantizer.variables(site_of("input", INPUTS["relu"]))
