import keras
import numpy as np
import pytest
from keras import layers
from tiny import METHODS, batch, compiled, inputs_like, predict

import kerasbits as kb
from kerasbits import sites
from kerasbits.layers import QuantConv2D, QuantDense

IMAGES, LABELS = batch((6, 6, 3), count=8)


def sequential():
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.DepthwiseConv2D(2, name="depth"),
            layers.Flatten(name="flat"),
            layers.Dense(5, use_bias=False, name="fc"),
            layers.Dense(3, name="logits"),
        ],
        name="seq",
    )


def functional():
    x = inputs = keras.Input((6, 6, 3))
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    x = layers.Add(name="add")([shared(shared(x)), x])
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, [layers.Dense(3, name="a")(x), layers.Dense(2, name="b")(x)])


def nested():
    inner_in = keras.Input((6, 6, 3))
    inner = keras.Model(inner_in, layers.Conv2D(4, 3, name="conv")(inner_in), name="block")
    head = keras.Sequential(
        [keras.Input((64,)), layers.Dense(4, name="conv"), layers.Dense(3, name="out")], name="head"
    )
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Flatten(name="flat")(inner(x))
    return keras.Model(inputs, head(x), name="outer")


BUILDERS = (sequential, functional, nested)


def built(builder):
    keras.utils.set_random_seed(5)
    model = builder()
    rng = np.random.default_rng(5)
    for _, layer in sites.walk(model):
        if isinstance(layer, layers.BatchNormalization):  # not the trivial one
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def outputs(model):
    return np.concatenate([np.ravel(predict_one) for predict_one in _many(model)])


def _many(model):
    found = model(IMAGES, training=False)
    return [keras.ops.convert_to_numpy(y) for y in (found if isinstance(found, list) else [found])]


def snapshot(model):
    return (
        model.to_json(),
        [v.path for v in model.variables],
        [v.numpy() for v in model.variables],
        len(model.layers),
        model.compiled,
        getattr(model, "optimizer", None),
    )


@pytest.mark.parametrize("name", ["uniform", "bitpruning", "bayesian_bits"])
@pytest.mark.parametrize("builder", BUILDERS)
def test_eight_bits_are_close(builder, name):
    model = built(builder)
    q = kb.quantize_model(model, kernel=METHODS[name], inputs=kb.Uniform(8))
    kb.calibrate(q, IMAGES)
    want = outputs(model)
    # A few layers of 8 bits: less than a percent of the largest output each.
    assert np.abs(outputs(q) - want).max() < 0.03 * np.abs(want).max()
    assert np.abs(outputs(q) - want).max() > 0


@pytest.mark.parametrize("builder", BUILDERS)
def test_quantizers_start_from_the_copied_kernels(builder):
    q = kb.quantize_model(built(builder), kernel="bsq", inputs="bitpruning")
    for place in sites.places(q, "kernel"):
        kernel = place.layer.kernel.numpy()
        step = np.abs(kernel).max() / 255  # 8 magnitude bits
        assert np.abs(place.layer.quantized_kernel() - kernel).max() <= 0.51 * step


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("builder", BUILDERS)
def test_the_given_model_is_left_alone(builder, is_compiled):
    model = built(builder)
    if is_compiled:
        model.compile("adam", "mse", jit_compile=False)
    before = snapshot(model)
    q = kb.quantize_model(model, kernel="bitpruning", inputs="uniform")
    assert not q.compiled
    kb.calibrate(q, IMAGES)
    for place in sites.places(q, "kernel"):
        place.layer.kernel.assign(0 * place.layer.kernel)
    after = snapshot(model)
    for old, new in zip(before[2], after[2], strict=True):
        np.testing.assert_array_equal(old, new)
    assert before[:2] + before[3:] == after[:2] + after[3:]
    assert not {id(x) for _, x in sites.walk(model)} & {id(x) for _, x in sites.walk(q)}


def test_a_loss_that_cannot_be_serialized_is_no_obstacle():
    model = built(sequential)
    model.compile("adam", lambda y, p: keras.ops.mean(p), jit_compile=False)
    assert not kb.quantize_model(model, kernel="uniform").compiled
    assert model.compiled


def test_inputs_and_outputs_keep_their_structure():
    model = built(functional)
    q = kb.quantize_model(model, kernel="uniform")
    assert (q.name, len(q.outputs), q.input_shape) == (model.name, 2, model.input_shape)
    named = keras.Input((4,), name="left")
    by_name = keras.Model({"left": named}, layers.Dense(2, name="fc")(named))
    q = kb.quantize_model(by_name, inputs=kb.Uniform())
    x = np.ones((2, 4), np.float32)
    kb.calibrate(q, [{"left": x}])
    assert q({"left": x}).shape == (2, 2)


def test_shared_layer_is_quantized_once():
    q = kb.quantize_model(built(functional), kernel="bitpruning", inputs="uniform")
    assert [p.path for p in sites.places(q, "kernel")] == ["shared", "a", "b"]
    assert [p.host.site.share for p in sites.places(q, "kernel")] == [np.float32(1 / 3)] * 3


def test_nested_paths():
    q = kb.quantize_model(
        built(nested),
        kernel="uniform",
        rules={"^block/": kb.Rule(kernel="bsq"), r"head/out$": None},
    )
    found = {p.path: type(p.quantizer) for p in sites.places(q)}
    assert found == {"block/conv": kb.BSQ, "head/conv": kb.Uniform}
    assert type(q.get_layer("head").get_layer("out")) is layers.Dense


def test_first_rule_that_matches_wins():
    rules = {
        "^fc$": kb.Rule(kernel=kb.Uniform(2)),
        "c": kb.Rule(kernel="bitpruning", inputs=kb.Uniform(3)),
        "logits": None,
    }
    with pytest.raises(ValueError, match="every rule"):
        kb.quantize_model(built(sequential), "apot", rules={"^fc$": None, "^f.$": None})
    q = kb.quantize_model(built(sequential), kernel="apot", rules=rules)
    assert q.get_layer("fc").kernel_quantizer == kb.Uniform(2)
    assert q.get_layer("fc").input_quantizer is None
    assert q.get_layer("conv").kernel_quantizer == kb.BitPruning()
    assert q.get_layer("conv").input_quantizer == kb.Uniform(3)
    assert type(q.get_layer("logits")) is layers.Dense
    np.testing.assert_array_equal(
        q.get_layer("logits").kernel, built(sequential).get_layer("logits").kernel
    )


def test_rule_that_matches_nothing():
    with pytest.raises(ValueError, match=r"every rule to match.*\['convv'\].*'conv'.*'logits'"):
        kb.quantize_model(built(sequential), kernel="uniform", rules={"convv": None})


class MyConv(layers.Conv2D):
    """A subclass may do anything, so it has no quantized form."""


def test_strict_names_what_stays_float():
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), MyConv(4, 3, name="mine"), layers.Conv2D(2, 3, name="conv")]
    )
    with pytest.raises(ValueError, match=r"layer 'mine'.*Conv2D.*got MyConv"):
        kb.quantize_model(model, kernel="uniform", strict=True)
    for strict, rules in ((True, {"mine": None}), (False, None)):
        q = kb.quantize_model(model, kernel="uniform", strict=strict, rules=rules)
        assert type(q.get_layer("mine")) is MyConv
        assert type(q.get_layer("conv")) is QuantConv2D
    assert [row.method for row in kb.report(q).rows] == ["float", "Uniform"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": "bitprunning"}, r"the arguments: .*bitpruning.*got 'bitprunning'"),
        ({"inputs": "bsq"}, r"the arguments: expected a quantizer for the input, got BSQ.*kernel"),
        ({"kernel": 8}, r"the arguments: .*got 8"),
        ({"rules": {"conv": kb.Rule(inputs="bsq")}}, r"rule 'conv': .*input"),
        ({"rules": {"conv": "bsq"}}, r"rule 'conv': expected a kerasbits.Rule or None, got 'bsq'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kb.quantize_model(built(sequential), **arguments)


class Subclassed(keras.Model):
    def __init__(self, quantizer=None):
        super().__init__(name="mine")
        self.blocks = [QuantDense(4, kernel_quantizer=quantizer, name="inner")]
        self.out = layers.Dense(3, name="out")

    def call(self, x):
        return self.out(self.blocks[0](x))


@pytest.mark.parametrize("name", METHODS)
def test_layers_inside_a_model_that_fit_builds(name):
    """Keras traces such a model before its weights exist; the state must follow the kernel."""
    x, y = batch()
    model = Subclassed(METHODS[name])
    compiled(model, keras.optimizers.SGD(0.0), run_eagerly=False).fit(x, y, epochs=1, verbose=0)
    layer = model.blocks[0]
    state = layer.kernel_host.state()
    layer.reset_quantizers()
    for key, value in layer.kernel_host.state().items():
        np.testing.assert_array_equal(state[key], value, err_msg=key)
    kb.freeze(model)
    bits = layer.packed_kernel().bits.max()
    if bits >= 8:
        kernel = layer.kernel.numpy()
        assert np.abs(layer.quantized_kernel() - kernel).max() < np.abs(kernel).max() / 2**6


def test_subclassed_models():
    x, y = batch()
    model = Subclassed("bitpruning")
    with pytest.raises(ValueError, match="'mine': expected a built model"):
        kb.quantize_model(model, kernel="uniform")
    compiled(model).fit(x, y, verbose=0)  # built inside fit, from the deferred kernel
    with pytest.raises(ValueError, match=r"'mine'.*Subclassed.*kerasbits.layers inside it"):
        kb.quantize_model(model, kernel="uniform")
    assert [p.path for p in sites.places(model)] == ["inner"]
    kb.freeze(model)
    assert kb.report(model).rows[0].bits == 8


def test_models_that_are_none():
    with pytest.raises(ValueError, match="'bare': expected a built model"):
        kb.quantize_model(keras.Sequential([layers.Dense(2)], name="bare"), kernel="uniform")

    class Model:  # as tf_keras has one
        name, built, layers = "m", True, ()

    for other in (Model(), layers.Dense(2), None):
        with pytest.raises(ValueError, match="expected a Keras 3 model, got"):
            kb.quantize_model(other, kernel="uniform")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(bad):
    model = built(nested)
    bias = model.get_layer("block").get_layer("conv").bias
    bias.assign(np.full(bias.shape, bad))
    with pytest.raises(ValueError, match=r"layer 'block/conv': expected finite weights.*'bias'"):
        kb.quantize_model(model, kernel="uniform")


def test_what_is_left_of_a_model_can_be_quantized():
    """Layers that are quantized already keep their quantizers and their state."""
    first = kb.quantize_model(built(sequential), kernel="bitpruning", rules={"logits": None})
    first.get_layer("fc").kernel_host.assign({"bits": 3.0})
    second = kb.quantize_model(first, rules={"logits": kb.Rule("bsq")})
    assert second.get_layer("fc").kernel_host.state()["bits"] == 3
    assert type(second.get_layer("logits").kernel_quantizer) is kb.BSQ


def test_untrainable_layers_stay_so():
    model = built(sequential)
    model.get_layer("conv").trainable = False
    q = kb.quantize_model(model, kernel="bsq")
    assert not q.get_layer("conv").trainable_variables
    assert q.get_layer("fc").trainable_variables


@pytest.mark.parametrize("method", ["bsq", "bitpruning"])
def test_bits_of_untrainable_layers_do_not_move_either(method):
    """Nor those of the parts of a layer, nor after saving; and they move again when they may."""
    layers, x = keras.layers, np.ones((2, 4, 3), np.float32)
    for make in (
        lambda: layers.Conv1D(2, 2, name="still"),
        lambda: layers.SeparableConv1D(2, 2, name="still"),
        lambda: layers.EinsumDense("abc,cd->abd", (4, 2), name="still"),
    ):
        model = keras.Sequential([keras.Input((4, 3)), make(), layers.Dense(2, name="last")])
        free = kb.quantize_model(model, method, "uniform")
        model.get_layer("still").trainable = False
        q = kb.quantize_model(model, method, "uniform")
        copy = keras.models.clone_model(q)
        for one in (q, copy):
            learned = one.get_layer("last").trainable_variables
            assert {id(v) for v in one.trainable_variables} == {id(v) for v in learned}
        kb.calibrate(q, x)
        q.get_layer("still").trainable = True
        assert len(q.trainable_variables) == len(free.trainable_variables)


def test_application_model():
    model = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=4
    )
    q = kb.quantize_model(model, kernel=kb.Uniform(8), inputs=kb.Uniform(8))
    report = kb.report(q)
    kinds = {}
    for row in report.rows:
        kinds.setdefault(row.layer, set()).add(row.method)
    assert kinds == {"QuantConv2D": {"Uniform"}, "QuantDepthwiseConv2D": {"Uniform"}}
    assert report.weights == sum(int(np.prod(w.shape)) for w in model.weights if len(w.shape) == 4)
    kb.quantize_model(model, kernel="uniform", strict=True)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name):
    q = kb.quantize_model(built(nested), METHODS[name], inputs_like(METHODS[name]))
    kb.calibrate(q, IMAGES)
    compiled(q).fit(IMAGES, LABELS, verbose=0)
    kb.adjust(q)
    kb.freeze(q)
    before = kb.report(q)
    q.fit(IMAGES, LABELS, verbose=0)
    assert [row.bits for row in kb.report(q).rows] == [row.bits for row in before.rows]
    assert np.isfinite(predict(q, IMAGES)).all()
