"""The same networks with the quantizers of other projects, each in its own environment."""

import os
import types

if os.environ.get("KERASBITS_PEER") in ("tfmot", "qkeras"):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

from networks import NETWORKS


def maker(kind, network, method):
    """A function that builds and compiles the model of a project; `method` "float" is its float."""
    keras, build = PROJECTS[kind]()
    make_float = NETWORKS[network]

    def make(jit):
        model = make_float(keras=keras) if method == "float" else build(make_float)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="sgd", loss=loss, jit_compile=jit)
        return model

    return make


def tfmot():
    """8 bits, tfmot's default scheme."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    def build(make_float):
        return tfmot.quantization.keras.quantize_model(make_float(keras=tf_keras))

    return tf_keras, build


def larq():
    """Signs of weights and inputs."""
    import larq
    import tensorflow as tf

    signs = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
    }

    def depthwise(*args, **more):
        own = {k.replace("kernel", "depthwise"): v for k, v in signs.items()}
        return larq.layers.QuantDepthwiseConv2D(*args, **own, **more)

    replaced = {
        "Conv2D": lambda *args, **more: larq.layers.QuantConv2D(*args, **signs, **more),
        "Dense": lambda *args, **more: larq.layers.QuantDense(*args, **signs, **more),
        "DepthwiseConv2D": depthwise,
    }
    return tf.keras, lambda make_float: make_float(keras=_with(tf.keras, replaced))


def qkeras():
    """4-bit kernels, 8-bit inputs, behind each activation."""
    import qkeras
    import tf_keras

    def bits(name, kind):
        own = {name: "quantized_bits(4,0,1)"}
        return lambda *args, **more: getattr(qkeras, kind)(*args, **own, **more)

    def relu(*args, name=None, **more):
        return qkeras.QActivation("quantized_relu(8,3)", name=name)

    replaced = {
        "Conv2D": bits("kernel_quantizer", "QConv2D"),
        "Dense": bits("kernel_quantizer", "QDense"),
        "DepthwiseConv2D": bits("depthwise_quantizer", "QDepthwiseConv2D"),
        "ReLU": relu,
    }
    return tf_keras, lambda make_float: make_float(keras=_with(tf_keras, replaced))


def hgq2():
    """Learned bits of weights and inputs, one for each weight; its defaults."""
    import hgq.layers
    import keras

    replaced = {
        "Conv2D": hgq.layers.QConv2D,
        "Dense": hgq.layers.QDense,
        "DepthwiseConv2D": getattr(hgq.layers, "QDepthwiseConv2D", keras.layers.DepthwiseConv2D),
    }
    return keras, lambda make_float: make_float(keras=_with(keras, replaced))


PROJECTS = {"tfmot": tfmot, "larq": larq, "qkeras": qkeras, "hgq2": hgq2}


def _with(keras, replaced):
    """A Keras whose `layers` have some classes replaced."""
    names = {name: getattr(keras.layers, name) for name in dir(keras.layers) if name[0] != "_"}
    layers = types.SimpleNamespace(**{**names, **replaced})
    activations = keras.activations
    return types.SimpleNamespace(
        layers=layers, Model=keras.Model, Input=keras.Input, activations=activations
    )
