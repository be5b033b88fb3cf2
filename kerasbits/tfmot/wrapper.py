"""The tf_keras layer around a layer whose kernels and inputs are quantized."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import keras
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from kerasbits.quantizers import Site
from kerasbits.tfmot import separable
from kerasbits.tfmot.config import KerasbitsQuantizeConfig
from kerasbits.tfmot.forms import required_form, steps
from kerasbits.tfmot.quantizer import KerasbitsQuantizer


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A step of a layer with its quantizers; as `kerasbits.sites` wants it.

    Args:
        name: of the layer, or of the part of it that this step is.
        quantized_as: name of the Keras 3 class of the step, for reports.
        kernel: the float kernel, a variable.
        hosts: of the quantizers by role, "kernel" and "input", as far as present.
    """

    name: str
    quantized_as: str
    kernel: tf.Variable
    hosts: dict[str, KerasbitsQuantizer]

    @property
    def weights(self) -> list[tf.Variable]:
        """The kernel."""
        return [self.kernel]


@tf_keras.utils.register_keras_serializable(package="kerasbits")
class KerasbitsQuantizeWrapper(tfmot.quantization.keras.QuantizeWrapperV2):
    """Quantize the inputs and kernels of a tf_keras layer; it has the name of that layer.

    Formula: `y = layer(Q_input(x))` with `Q_kernel(w)` for its kernel. A separable convolution has
    two steps, each with quantizers of its own for input and kernel: then `layers` are its parts,
    depthwise and pointwise, which have the `hosts`.

    Quantizers compute in float32, whatever the dtype policy of the layer.

    Args:
        layer: the layer, see `kerasbits.tfmot.forms`.
        quantize_config: its quantizers.

    Raises:
        ValueError: a layer or a configuration of another kind.
    """

    def __init__(self, layer, quantize_config, **kwargs):
        check_layer(layer)
        required_form(layer)
        if not isinstance(quantize_config, KerasbitsQuantizeConfig):
            raise ValueError(
                f"layer '{layer.name}': expected a KerasbitsQuantizeConfig, got "
                f"{type(quantize_config).__name__}"
            )
        own = {
            "dtype": "float32",
            "autocast": False,
            "activity_regularizer": layer.activity_regularizer,
        }
        super().__init__(layer, quantize_config, **{**kwargs, "name_prefix": "", **own})
        self.supports_masking = layer.supports_masking
        self._parts: tuple[Part, ...] = ()

    def build(self, input_shape=None):
        """Create the weights of the layer, then the variables of the quantizers."""
        if self.built:
            return
        tf_keras.layers.Wrapper.build(self, input_shape)
        self.input_spec = self.layer.input_spec
        shape = tuple(tf.TensorShape(input_shape).as_list())
        kernels = self.quantize_config.get_weights_and_quantizers(self.layer)
        inputs = self.quantize_config.get_input_quantizers(self.layer)
        parts = []
        for i, step in enumerate(steps(self.layer, shape)):
            hosts = {"kernel": kernels[i][1]} if kernels else {}
            hosts |= {"input": inputs[i]} if inputs else {}
            prefix = "" if step.name == self.layer.name else f"{step.name}/"
            kernel = getattr(self.layer, step.kernel)
            parts.append(Part(step.name, step.kind, kernel, hosts))
            for role, host in hosts.items():
                self._build_host(host, step.sites[role], kernel, f"{prefix}{role}_quantizer")
        self._parts = tuple(parts)

    def _build_host(self, host: KerasbitsQuantizer, site: Site, kernel, name: str) -> None:
        self._site_to_build = site
        host.build(kernel.shape if site.role == "kernel" else site.shape, name, self)
        # Of variables alone, so that it counts once, however often the layer is called.
        self.add_loss(host.penalty)

    def site_of(self, host: KerasbitsQuantizer) -> Site:
        """Where the quantizer works that is being built."""
        return self._site_to_build

    def __call__(self, inputs, *args, **kwargs):
        """The layer's output.

        Raises:
            ValueError: a symbolic tensor of Keras 3.
        """
        if isinstance(inputs, keras.KerasTensor):
            raise ValueError(
                f"layer '{self.name}': expected a tensor of tf_keras, got one of Keras 3; "
                "kerasbits.layers are for Keras 3 models"
            )
        return super().__call__(inputs, *args, **kwargs)

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None, mask=None):
        """The layer's output. The mask passes by: no layer that can be quantized takes one."""
        if training is None:
            training = tf_keras.backend.learning_phase()
        dtype = self.layer.compute_dtype
        kernels = [tf.cast(self._quantized(part, training), dtype) for part in self._parts]
        inputs = self._quantized_input(self._parts[0], inputs, training)
        if len(kernels) > 1:
            return separable.run(
                self.layer,
                inputs,
                kernels,
                lambda x: self._quantized_input(self._parts[1], x, training),
            )
        with self._standing_in(kernels):
            # Of the class: while a SavedModel is written, tf_keras puts a traced function in the
            # place of the object's own, and that would capture what stands in.
            return type(self.layer).call(self.layer, inputs)

    def _quantized(self, part: Part, training):
        """The kernel that a step works with, float32."""
        # This layer computes in float32, so the kernel is not cast where it is read.
        host = part.hosts.get("kernel")
        return tf.convert_to_tensor(part.kernel) if host is None else host(part.kernel, training)

    def _quantized_input(self, part: Part, inputs, training):
        """The input that a step works with, in the layer's compute dtype if it is a float."""
        if inputs.dtype.is_floating:
            inputs = tf.cast(inputs, self.layer.compute_dtype)
        host = part.hosts.get("input")
        return inputs if host is None else host(inputs, training)

    @contextlib.contextmanager
    def _standing_in(self, kernels):
        """Let tensors stand for the layer's variables, for the time of one call."""
        variables = [part.kernel for part in self._parts]
        bias = getattr(self.layer, "bias", None)
        self.quantize_config.set_quantize_weights(self.layer, kernels)
        if bias is not None:
            vars(self.layer)["bias"] = tf.cast(bias, self.layer.compute_dtype)
        try:
            yield
        finally:
            self.quantize_config.set_quantize_weights(self.layer, variables)
            if bias is not None:
                vars(self.layer)["bias"] = bias

    def compute_output_shape(self, input_shape):
        """That of the layer."""
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs, mask=None):
        """That of the layer."""
        return self.layer.compute_mask(inputs, mask)

    # What kerasbits.sites, report and lifecycle want to know.

    @property
    def hosts(self) -> dict[str, KerasbitsQuantizer]:
        """The hosts by role, "kernel" and "input", as far as present; empty before it is built.

        Raises:
            AttributeError: a separable convolution: its `layers` have them.
        """
        if len(self._parts) > 1:
            raise AttributeError(f"layer '{self.name}': its two parts, in `layers`, have the hosts")
        return self._parts[0].hosts if self._parts else {}

    @property
    def layers(self) -> tuple[Part, ...]:
        """The two parts of a separable convolution, depthwise and pointwise.

        Raises:
            AttributeError: another layer, which has `hosts`.
        """
        if len(self._parts) < 2:
            raise AttributeError(f"layer '{self.name}': has one step only, and the hosts itself")
        return self._parts

    @property
    def kernel(self) -> tf.Variable:
        """The float kernel of a layer that has one."""
        return self._parts[0].kernel

    @property
    def quantized_as(self) -> str:
        """Name of the Keras 3 class of the same layer, for reports."""
        return required_form(self.layer).quantized.__name__

    def reset_quantizers(self) -> None:
        """Start the quantizers anew from the current kernels (after they were replaced)."""
        for part in self._parts:
            for host in part.hosts.values():
                host.reset()

    # A layer around another has its weights and its losses, as every layer of tf_keras; the
    # wrappers of tfmot list them otherwise.

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """Those of the layer, then those of the quantizers. No kernel that a quantizer replaces."""
        if not self.trainable:
            return []
        replaced = self._replaced()
        kept = [w for w in self.layer.trainable_weights if not _contains(replaced, w)]
        return kept + self._trainable_weights

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        """The others."""
        if not self.trainable:
            return self.layer.weights + self._trainable_weights + self._non_trainable_weights
        return self.layer.non_trainable_weights + self._replaced() + self._non_trainable_weights

    @property
    def losses(self) -> list:
        """Losses of the quantizers and the regularizers of the layer."""
        return tf_keras.layers.Layer.losses.fget(self)

    @property
    def updates(self) -> list:
        """None: they run as they are met."""
        return []

    def _replaced(self) -> list[tf.Variable]:
        """Kernels whose values come from the state of a quantizer."""
        return [
            part.kernel
            for part in self._parts
            if "kernel" in part.hosts and part.hosts["kernel"].quantizer.owns_weight
        ]


def _contains(variables: list[tf.Variable], one: tf.Variable) -> bool:
    return any(v is one for v in variables)


def check_layer(layer: Any) -> None:
    """Whether something is a layer of tf_keras, and no model.

    Raises:
        ValueError: it is not; says so if it is one of Keras 3.
    """
    if isinstance(layer, keras.layers.Layer):
        raise ValueError(
            f"layer '{layer.name}': expected a tf_keras layer, got one of Keras 3, "
            f"{type(layer).__module__}.{type(layer).__name__}; kerasbits.layers are for Keras 3"
        )
    if isinstance(layer, tf_keras.Model) or not isinstance(layer, tf_keras.layers.Layer):
        raise ValueError(
            f"expected a tf_keras layer, got {type(layer).__module__}.{type(layer).__name__}"
        )
