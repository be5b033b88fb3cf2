"""The tutorials, run in an empty folder and shortened to an epoch or so: they do what they say."""

import ast
import os
import pathlib
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasbits as kb
from tflite_export import Interpreter

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
TUTORIALS = ("ten_lines", "mixed_precision", "custom_loop", "own_method", "keras_to_tflite")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a tutorial in an empty folder; its variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name, epochs):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", str(epochs)])
        return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    return run


def bits_of(model):
    return {row.name: row.bits for row in kb.report(model).rows}


def predicted_class(model, x):
    return model.predict(x, verbose=0).argmax(-1)


def test_ten_lines(run, capsys):
    found = run("ten_lines", 1)
    x, q = found["x_test"], found["q"]
    bits = bits_of(q)
    assert all(b == round(b) and 2 <= b <= 8 for b in bits.values()), bits
    assert type(found["model"].get_layer("conv1")) is keras.layers.Conv2D  # left alone
    assert np.array_equal(found["logits"].argmax(-1), predicted_class(q, x))
    loaded = keras.models.load_model("digits_quantized.keras")
    assert np.array_equal(loaded.predict(x, verbose=0), q.predict(x, verbose=0))
    assert pathlib.Path("digits.tflite").stat().st_size == found["result"].file_bytes
    printed = capsys.readouterr().out
    assert "epoch 1/1" in printed
    assert f"{found['result'].weight_bytes:,} bytes of kernels" in printed


def test_ten_lines_are_ten():
    body = ast.parse((EXAMPLES / "ten_lines.py").read_text()).body
    lines = [ast.unparse(node) for node in body]
    first = next(i for i, line in enumerate(lines) if "quantize_model" in line)
    last = next(i for i, line in enumerate(lines) if line.startswith("logits ="))
    assert last - first + 1 == 10
    assert all(n.lineno == n.end_lineno for n in body[first : last + 1])


def test_mixed_precision(run, capsys):
    found = run("mixed_precision", 2)
    q, after = found["q"], {row.name: row for row in found["after"].rows}
    methods = {name: (row.method, row.input_method) for name, row in after.items()}
    assert methods == {
        "stem": ("Uniform", "Uniform"),
        "features/depthwise1": ("BitPruning", "BitPruning"),
        "features/pointwise1": ("BitPruning", "Uniform"),
        "features/depthwise2": ("BitPruning", "BitPruning"),
        "features/pointwise2": ("BitPruning", "Uniform"),
        "hidden": ("BayesianBits", "Uniform"),
        "logits": ("float", "float"),
    }
    depthwise = q.get_layer("features").get_layer("depthwise1")
    assert depthwise.packed_kernel().bits.shape == (16,)  # one width a channel
    assert after["stem"].bits == 8
    before = {row.name: row.bits for row in found["before"].rows}
    assert after["features/pointwise2"].bits < before["features/pointwise2"] == 8
    assert "features/depthwise2" in pathlib.Path("mixed_precision.html").read_text()
    assert f"mixed: {q.evaluate(found['x_test'], found['y_test'], verbose=0)[1]:.1%}" in (
        capsys.readouterr().out
    )


def test_custom_loop(run, capsys):
    found = run("custom_loop", 3)
    step = found["train_step"]
    task, price = (float(value) for value in found["results"][-1])
    assert price == 0  # the last epoch is frozen
    assert np.isfinite(task)
    # The first trace makes the optimizer's variables, the second is for good: freezing adds none.
    assert step.experimental_get_tracing_count() == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    prices = [float(line.split("price of bits ")[1].split(",")[0]) for line in lines]
    assert prices[0] > prices[1] > prices[2] == 0
    accuracies = [float(line.split(" bits, ")[1].split("%")[0]) for line in lines]
    assert accuracies[-1] > accuracies[0]  # it trains
    assert found["optimizer"].iterations == 3 * found["batches"].steps_per_epoch


def test_own_method(run):
    found = run("own_method", 1)
    q, x = found["q"], found["x_test"]
    rows = kb.report(q).rows
    assert {row.method for row in rows} == {"StepAndRange"}
    assert all(row.bits == round(row.bits) and 2 <= row.bits <= 8 for row in rows), rows
    assert found["difference"] == 0
    assert np.array_equal(found["logits"].argmax(-1), predicted_class(q, x))
    np.save("x.npy", x)
    np.save("y.npy", q.predict(x, verbose=0))
    code = (
        "import keras, numpy, own_method\n"
        "model = keras.models.load_model('own_method.keras')\n"
        "found = model.predict(numpy.load('x.npy'), verbose=0)\n"
        "assert numpy.array_equal(found, numpy.load('y.npy'))\n"
    )
    folders = os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def step_and_range(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return runpy.run_path(str(EXAMPLES / "own_method.py"), run_name="own_method")["StepAndRange"]


def state_of(range_, step, fixed_bits=-1.0):
    return {
        "log2_range": np.float32(np.log2(range_)),
        "log2_step": np.float32(np.log2(step)),
        "fixed_bits": np.float32(fixed_bits),
    }


SITE = kb.Site("fc", shape=(5, 1))
KERNEL = np.float32([[0.9], [-0.4], [0.1], [-3.0], [0.38]])


def test_own_method_by_hand(step_and_range):
    """Range 0.75 in steps of 0.25: codes -3 to 3, 3 bits."""
    quantizer, state = step_and_range(), state_of(0.75, 0.25)
    values, updates = quantizer.quantize(KERNEL, state, SITE)
    np.testing.assert_allclose(values, [[0.75], [-0.5], [0.0], [-0.75], [0.5]], rtol=1e-6)
    assert updates == {}
    packed = quantizer.encode(KERNEL, state, SITE)
    assert packed.codes.ravel().tolist() == [6, 1, 3, 0, 5]
    assert packed.bits.tolist() == [3]
    np.testing.assert_array_equal(packed.decode(), values)
    assert float(quantizer.widths(state, SITE)) == pytest.approx(3)
    assert float(quantizer.loss(state, SITE)) == pytest.approx(0.3)


def test_own_method_starts_at_its_bits(step_and_range):
    quantizer = step_and_range(bits=3.4)
    state = {
        name: spec.initial(KERNEL) if callable(spec.initial) else spec.initial
        for name, spec in quantizer.variables(SITE).items()
    }
    assert float(quantizer.widths(state, SITE)) == pytest.approx(3.4)
    assert 2.0 ** state["log2_range"] == pytest.approx(3)


def test_own_method_freezes_to_the_range_and_the_next_whole_bits(step_and_range):
    quantizer, state = step_and_range(), state_of(0.75, 0.2)  # top 3.75: codes to 4, 4 bits
    frozen = {**state, **quantizer.freeze(state, SITE)}
    assert frozen["fixed_bits"] == 4
    assert quantizer.freeze(frozen, SITE) == {}
    assert float(quantizer.loss(frozen, SITE)) == 0
    packed = quantizer.encode(KERNEL, frozen, SITE)
    assert packed.encoding.scale == pytest.approx(0.75 / 7)
    assert packed.decode().min() == pytest.approx(-0.75)
    np.testing.assert_array_equal(packed.decode(), quantizer.quantize(KERNEL, frozen, SITE)[0])


def test_own_method_has_the_gradients_of_its_paper(step_and_range):
    """`dQ/dstep = (Q - x) / step` inside the range, `dQ/drange = sign(x)` outside, 0 elsewhere."""
    range_, step = tf.constant(0.75), tf.constant(0.25)
    x = tf.constant(KERNEL)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([range_, step, x])
        state = {
            "log2_range": tf.math.log(range_) / np.log(2),
            "log2_step": tf.math.log(step) / np.log(2),
            "fixed_bits": tf.constant(-1.0),
        }
        values = tf.unstack(tf.reshape(step_and_range().quantize(x, state, SITE)[0], [-1]))
    by_step = [float(tape.gradient(v, step)) for v in values]
    np.testing.assert_allclose(by_step, [0, -0.4, -0.4, 0, 0.48], atol=1e-5)
    by_range = [float(tape.gradient(v, range_)) for v in values]
    np.testing.assert_allclose(by_range, [1, 0, 0, -1, 0], atol=1e-5)
    by_weight = sum(tape.gradient(v, x) for v in values)
    np.testing.assert_allclose(tf.reshape(by_weight, [-1]), [0, 1, 1, 0, 1], atol=1e-5)


def test_own_method_refuses_senseless_settings(step_and_range):
    for bad in ({"bits": 17}, {"bits": 1}, {"strength": -0.1}, {"bits": float("nan")}):
        with pytest.raises(ValueError, match="expected bits in"):
            step_and_range(**bad)


def test_keras_to_tflite(run, capsys):
    found = run("keras_to_tflite", 1)
    x, q, scores = found["x_test"], found["q"], found["scores"]
    sizes = {name: pathlib.Path(name).stat().st_size for name in scores}
    order = ("digits.kbits", "digits.tflite", "digits_int8.tflite", "digits_float.tflite")
    assert sorted(order, key=sizes.get) == list(order)
    expected = q.predict(x, verbose=0)
    for name in ("digits_stock.tflite", "digits.tflite", "digits.kbits"):
        assert np.mean(scores[name].argmax(-1) == expected.argmax(-1)) > 0.99, name
        np.testing.assert_allclose(Interpreter(name).predict(x[:8]), scores[name][:8], atol=1e-3)
    floats = found["model"].predict(x, verbose=0)
    np.testing.assert_allclose(scores["digits_float.tflite"], floats, atol=1e-4)
    int8 = np.mean(scores["digits_int8.tflite"].argmax(-1) == predicted_class(found["q8"], x))
    assert int8 > 0.97
    printed = capsys.readouterr().out
    assert all(f"{size:>8,} bytes" in printed for size in sizes.values())


@pytest.mark.parametrize("name", TUTORIALS)
def test_named_files_exist(name):
    text = (EXAMPLES / f"{name}.py").read_text()
    for word in text.replace("`", " ").split():
        if word.startswith(("examples/", "docs/")):
            assert (EXAMPLES.parent / word.rstrip(".,;:")).exists(), word
