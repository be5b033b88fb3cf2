import csv
import io
import json

import keras
import numpy as np
import pytest
from dull import Dull
from keras import layers
from tiny import METHODS, batch, dense_model, inputs_like, mixed_model

import kerasbits as kb
from kerasbits.layers import QuantConv2D, QuantDense
from kerasbits.report import cells


def by_hand():
    """Every number of the report of this model is written out in the tests."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(2, 1, name="plain"),  # 4 weights, float
            QuantConv2D(4, 3, kernel_quantizer=kb.Uniform(3), name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(name="flat"),
            QuantDense(10, input_quantizer=kb.Uniform(6), name="half"),
            QuantDense(5, kernel_quantizer=Dull(2.5), input_quantizer=Dull(1.5), name="fc"),
        ]
    )


def test_rows_by_hand():
    rows = {row.name: row for row in kb.report(by_hand()).rows}
    assert list(rows) == ["plain", "conv", "half", "fc"]
    plain, conv, half, fc = rows.values()
    assert (plain.layer, plain.method, plain.input_method) == ("Conv2D", "float", "float")
    assert (plain.shape, plain.weights, plain.bits, plain.bytes) == ((1, 1, 2, 2), 4, 32, 16)
    assert (plain.macs, plain.bops) == (0, 0)

    assert (conv.layer, conv.method, conv.input_method) == ("QuantConv2D", "Uniform", "float")
    assert (conv.shape, conv.weights, conv.bits, conv.input_bits) == ((3, 3, 2, 4), 72, 3, 32)
    assert conv.macs == 4 * 4 * 72  # the output is 4x4
    assert conv.bops == 4 * 4 * 72 * 3 * 32
    assert conv.bytes == 3 * 8 * 2  # three planes of 72 bits, two words each

    assert (half.method, half.input_method) == ("float", "Uniform")
    assert (half.weights, half.bits, half.input_bits, half.bytes) == (640, 32, 6, 2560)
    assert half.bops == 640 * 32 * 6

    # Real bits, 2 * gain, as while training: bytes are a forecast.
    assert (fc.method, fc.input_method, fc.bits, fc.input_bits) == ("Dull", "Dull", 5, 3)
    assert (fc.weights, fc.macs, fc.bops) == (50, 50, 50 * 5 * 3)


def test_totals_by_hand():
    report = kb.report(by_hand())
    assert report.weights == 4 + 72 + 640 + 50
    assert report.weight_bytes == 16 + 48 + 2560 + 5 * 8  # 50 bits take one word
    assert report.float_bytes == 4 * report.weights
    assert report.average_bits == pytest.approx((72 * 3 + 50 * 5) / 122)
    assert report.bops == 4 * 4 * 72 * 96 + 640 * 192 + 750


def test_real_bits_give_a_forecast_of_bytes():
    model = dense_model(Dull(gain=1.2, strength=0))
    row = kb.report(model).rows[0]
    assert row.bits == pytest.approx(2.4)
    assert row.bytes == round(2.4 * 30 / 8)


def test_dropped_channels_take_no_bytes():
    model = dense_model(kb.BayesianBits(max_bits=8))
    layer = model.get_layer("first")
    layer.kernel_host.assign({"phi_prune": np.float32([5, -5, 5, -5, -5])})
    row = kb.report(model).rows[0]
    assert (row.dropped_channels, row.bits) == (3, 2 / 5 * 8)
    assert row.bytes == 8 * 8  # 8 planes of 12 bits
    assert row.bops == pytest.approx(30 * 32 * 8 * 2 / 5)


@pytest.mark.parametrize("name", METHODS)
def test_frozen_bytes_are_those_of_the_packed_kernels(name):
    method = METHODS[name]
    model = mixed_model(method, inputs_like(method))
    kb.calibrate(model, batch((5, 5, 2))[0])
    kb.freeze(model)
    for row in kb.report(model).rows:
        layer = model.get_layer(row.name)
        pack = layer.packed_kernel()
        assert row.bytes == pack.code_bytes
        assert row.bits == pack.bits.mean()
        assert row.shape == pack.shape
        assert row.dropped_channels == (pack.bits == 0).sum()
        assert row.input_bits == layer.input_grid().bits


def test_a_shared_layer_counts_once():
    x = inputs = keras.Input((4,))
    shared = QuantDense(4, kernel_quantizer="uniform", name="shared")
    model = keras.Model(inputs, shared(shared(x)))
    assert [row.name for row in kb.report(model).rows] == ["shared"]


def test_float_model():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="fc")])
    report = kb.report(model)
    assert (report.average_bits, report.bops, report.weight_bytes) == (32, 0, 48)
    empty = kb.report(keras.Sequential([keras.Input((4,)), layers.ReLU()]))
    assert (empty.rows, empty.weights, empty.average_bits) == ((), 0, 32)


def test_dict_and_json_agree():
    report = kb.report(by_hand())
    found = json.loads(report.to_json())
    assert found["average_bits"] == report.average_bits
    assert found["weight_bytes"] == report.weight_bytes
    assert found["bops"] == report.bops
    assert [row["name"] for row in found["rows"]] == ["plain", "conv", "half", "fc"]
    assert found["rows"][1]["shape"] == [3, 3, 2, 4]
    assert found == json.loads(json.dumps(report.to_dict()))


def test_csv():
    report = kb.report(by_hand())
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [row["name"] for row in rows] == ["plain", "conv", "half", "fc"]
    assert rows[1]["shape"] == "3x3x2x4"
    assert [float(row["bits"]) for row in rows] == [32, 3, 32, 5]
    assert [int(row["bytes"]) for row in rows] == [row.bytes for row in report.rows]


def test_html(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), QuantDense(3, kernel_quantizer="uniform", name="a<b>&c")]
    )
    kb.report(model).to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "a&lt;b&gt;&amp;c" in page
    assert "a<b>" not in page
    assert page.count("<tr>") == 2
    assert "8.00 bits on average" in page


def test_summary(capsys):
    kb.summary(by_hand())
    printed = capsys.readouterr().out
    report = kb.report(by_hand())
    assert f"{report.average_bits:.2f} bits on average" in printed
    for row in report.rows:
        assert all(cell in printed for cell in cells(row))
    assert "…" not in printed
