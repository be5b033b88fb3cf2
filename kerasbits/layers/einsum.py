"""The quantized einsum layer: a dense layer between two changes of axes."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from kerasbits.layers.composite import CompositeLayer
from kerasbits.layers.dense import QuantDense
from kerasbits.layers.matrix_product import MatrixProduct, from_matrix, order, to_matrix
from kerasbits.layers.quantized_layer import QuantizedOp
from kerasbits.layers.reordered import reordered
from kerasbits.packed import Floats, PackedTensor


@keras.saving.register_keras_serializable(package="kerasbits")
class QuantEinsumDense(CompositeLayer, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` with a quantized kernel and input, where it is a matrix product.

    Some labels of the input are summed over, the others are kept, and the kernel has none of the
    kept ones. The input becomes `[kept..., in]`, a `QuantDense` named `core` multiplies it by the
    kernel as `[in, out]`, and the result gets the axes of the output. Per-channel quantizers have
    parameters for each of the `out` columns.

    Raises:
        ValueError: another equation, or LoRA.

    Example:
        QuantEinsumDense("abc,cde->abde", (None, 4, 8), bias_axes="de", kernel_quantizer="bsq")
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        try:
            MatrixProduct.parse(self.equation)
        except ValueError as error:
            raise ValueError(f"layer '{self.name}': {error}") from None
        if self.lora_rank:
            raise ValueError(f"layer '{self.name}': expected no lora_rank, got {self.lora_rank}")

    @classmethod
    def accepts(cls, plain: keras.layers.Layer) -> bool:
        """Whether `plain` is a matrix product."""
        try:
            MatrixProduct.parse(plain.equation)
        except ValueError:
            return False
        return super().accepts(plain)

    def build(self, input_shape):
        """Create the dense core, and the bias if it does not fit into the core."""
        if self.built:
            return
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape))
        self.sample_shape = tuple(input_shape[1:])
        terms = MatrixProduct.parse(self.equation, len(input_shape))
        sizes = dict(zip(terms.outputs, self.compute_output_shape(input_shape), strict=True))
        sizes.update(zip(terms.inputs, input_shape, strict=True))
        self.product = terms = dataclasses.replace(terms, sizes=sizes)
        if unknown := [c for c in terms.kernel if sizes[c] is None]:
            raise ValueError(f"layer '{self.name}': expected known sizes of {unknown}, got None")
        self._own_bias = None
        if self.bias_axes and not self._bias_fits:
            self._own_bias = self.add_weight(
                name="bias",
                shape=self._bias_shape(),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.core = self._part(QuantDense, "core", **self._core_arguments())
        self.core.build((*terms.shape(terms.kept), terms.size(terms.contracted)))
        self.built = True

    def compute_output_shape(self, input_shape):
        """As Keras has it, with known sizes of kept axes where Keras leaves them unknown."""
        shape = super().compute_output_shape(input_shape)
        terms = MatrixProduct.parse(self.equation, len(input_shape))
        kept = dict(zip(terms.inputs, input_shape, strict=True))
        pairs = zip(terms.outputs, shape, strict=True)
        return tuple(kept.get(c) if n is None else n for c, n in pairs)

    @property
    def _bias_fits(self) -> bool:
        """Whether the bias has one value for each output of the core."""
        return bool(self.bias_axes) and set(self.bias_axes) == set(self.product.produced)

    def _bias_shape(self) -> tuple[int, ...]:
        """As Keras has it: from the first axis with a bias on, 1 where there is none."""
        outputs = self.product.outputs
        rest = outputs[min(outputs.index(c) for c in self.bias_axes) :]
        return tuple(self.product.sizes[c] if c in self.bias_axes else 1 for c in rest)

    @property
    def _core_ends_it(self) -> bool:
        """Whether the output of the core needs no change but the activation."""
        terms = self.product
        ordered = terms.outputs == terms.kept + terms.produced
        return ordered and len(terms.produced) == 1 and self._own_bias is None

    def _core_arguments(self) -> dict:
        terms = self.product
        arguments = reordered(
            terms.shape(terms.kernel),
            terms.kernel_order,
            kernel_initializer=self._kernel_initializer(),
            kernel_regularizer=self.kernel_regularizer,
            kernel_constraint=self.kernel_constraint,
        )
        if self._bias_fits:
            shape = self._bias_shape()
            arguments |= reordered(
                shape,
                tuple(range(len(shape))),
                bias_initializer=self.bias_initializer,
                bias_regularizer=self.bias_regularizer,
                bias_constraint=self.bias_constraint,
            )
        return {
            **arguments,
            "units": terms.size(terms.produced),
            "use_bias": self._bias_fits,
            "activation": self.activation if self._core_ends_it else None,
        }

    def _kernel_initializer(self):
        """The initializer with Keras' idea of this kernel's inputs and outputs, if it asks."""
        initializer, terms = self.kernel_initializer, self.product
        if not isinstance(initializer, keras.initializers.VarianceScaling):
            return initializer
        config = initializer.get_config()
        if "input_axes" not in config or None not in (config["input_axes"], config["output_axes"]):
            return initializer
        config["input_axes"] = [i for i, c in enumerate(terms.kernel) if c in terms.contracted]
        config["output_axes"] = [i for i, c in enumerate(terms.kernel) if c in terms.produced]
        # Not the seed of the configuration: None there stands for one that was drawn.
        return type(initializer).from_config({**config, "seed": initializer.seed})

    def call(self, inputs, training=None):
        """The layer's output."""
        outputs = self._unfold(self.core(self._fold(inputs), training=training))
        if self._own_bias is not None:
            outputs = ops.add(outputs, self._own_bias)
        return outputs if self._core_ends_it else self.activation(outputs)

    def _fold(self, x):
        """`[kept..., in]`."""
        terms = self.product
        x = _transposed(x, order(terms.inputs, terms.kept + terms.contracted))
        if len(terms.contracted) == 1:
            return x
        return ops.reshape(x, (*self._lead(x), terms.size(terms.contracted)))

    def _unfold(self, y):
        """The output of the core with the axes of this layer's output."""
        terms = self.product
        if len(terms.produced) != 1:
            y = ops.reshape(y, (*self._lead(y), *terms.shape(terms.produced)))
        return _transposed(y, order(terms.kept + terms.produced, terms.outputs))

    def _lead(self, x) -> list:
        """Sizes of the kept axes, for a reshape."""
        sizes = list(ops.shape(x)[: len(self.product.kept)])
        if sizes.count(None) > 1:
            raise ValueError(
                f"layer '{self.name}': expected one unknown axis at most, to merge or split "
                f"others, got shape {tuple(x.shape)}"
            )
        return [-1 if n is None else n for n in sizes]

    def as_functional(self) -> keras.Model:
        """A model of transposes, reshapes, the core, and a bias that is not the core's."""
        inputs = self._functional_input()
        outputs = self._unfold(self.core(self._fold(inputs)))
        if self._own_bias is not None:
            outputs = ops.add(outputs, ops.convert_to_numpy(self._own_bias))
        if not self._core_ends_it and self.activation is not keras.activations.linear:
            outputs = keras.layers.Activation(self.activation, name="activation")(outputs)
        return keras.Model(inputs, outputs, name=self.name)

    def parts(self) -> tuple[QuantizedOp, ...]:
        """The core."""
        return (self.core,)

    @property
    def kernel(self):
        """The float kernel in Keras shape; the variable is `core.kernel`."""
        return self._keras_shape(self.core.kernel * 1.0, ops)

    @property
    def bias(self) -> keras.Variable | None:
        """The bias; if it is the core's, `(out,)`."""
        return self.core.bias if self._own_bias is None else self._own_bias

    def _keras_shape(self, matrix, backend):
        terms = self.product
        return from_matrix(matrix, terms.kernel_order, terms.shape(terms.kernel), backend)

    def packed_kernel(self) -> PackedTensor | None:
        """Codes, bits and grid of the kernel as `[in, out]`; None without a kernel quantizer."""
        return self.core.packed_kernel()

    def quantized_kernel(self) -> np.ndarray:
        """The kernel that inference uses, float32, in Keras shape."""
        return self._keras_shape(self.core.quantized_kernel(), np)

    def integer_kernel(self) -> np.ndarray | None:
        """Unsigned codes of the kernel, `uint16`, in Keras shape; None without a kernel quantizer.

        Empty if the quantized values are floats (above 16 bits).
        """
        packed = self.packed_kernel()
        if packed is None or isinstance(packed.encoding, Floats):
            return None if packed is None else packed.codes
        return self._keras_shape(packed.codes, np)

    def copy_from(self, plain: keras.layers.Layer) -> None:
        """Take the weights of a built plain layer, and start the quantizers from them."""
        kernel = self.core.kernel
        kernel.assign(to_matrix(plain.kernel * 1.0, self.product.kernel_order, kernel.shape, ops))
        if self.bias is not None:
            self.bias.assign(ops.reshape(plain.bias, self.bias.shape))
        self.reset_quantizers()

    # `EinsumDense` would save a kernel of its own, and there is none.

    def save_own_variables(self, store):
        """The bias, if it is not the core's."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        """The bias, if it is not the core's."""
        keras.layers.Layer.load_own_variables(self, store)


def _transposed(x, axes: tuple[int, ...]):
    return x if axes == tuple(range(len(axes))) else ops.transpose(x, axes)
