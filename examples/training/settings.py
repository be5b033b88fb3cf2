"""Everything that a training run is told, with defaults and checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from datasets import NAMES
from networks import NETWORKS
from recipes import INPUT_METHODS, METHODS

from training.agreement import check_agreement
from training.quantizing import recipe
from training.values import (
    Choice,
    Number,
    Place,
    Power,
    SettingError,
    Size,
    Switch,
    Table,
    Value,
    Whole,
    nearest,
)

MODES = ("train", "eval", "train_and_eval", "export")
AUGMENTATIONS = ("default", "none", "crop", "crop_and_flip")
SCHEDULES = ("constant", "cosine", "step")
DISTRIBUTIONS = ("none", "mirrored", "multi_worker")

ALIASES = {"epochs": "learn_epochs"}
"""Other names of settings, in flags and in files."""


def _setting(default: Any, kind: type[Value], description: str, **options) -> Any:
    """A field of `Settings`."""
    value = kind(help=description, optional=default is None, **options)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata={"value": value})
    return dataclasses.field(default=default, metadata={"value": value})


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is told. `value_of(name).help` describes each field, as `--helpfull` does.

    Fields are checked and brought into their types (a path gets its home folder, a size becomes a
    tuple) when the record is made, and agree with each other.

    Raises:
        SettingError: a `ValueError` that names the field, what was expected, and what came.

    Example:
        Settings("runs/bsq", method="bsq", learn_epochs=3)
    """

    model_dir: str = dataclasses.field(
        metadata={
            "value": Place(
                help="Folder of the run: checkpoints, logs, settings.yaml, model.keras. A run that "
                "was interrupted goes on from here.",
                free=True,
            )
        }
    )
    mode: str = _setting(
        "train_and_eval",
        Choice,
        "'train' trains and exports, 'eval' measures the trained model and the exported file on "
        "the test images, 'train_and_eval' does both, 'export' writes the file again.",
        choices=MODES,
        free=True,
    )

    method: str = _setting(
        "bitpruning",
        Choice,
        "Method that quantizes the kernels. All but 'uniform', the plain baseline, and 'apot' and "
        "'least_squares_binary', which have fixed bits, learn the bits.",
        choices=tuple(METHODS),
    )
    method_options: Mapping[str, Any] = _setting(
        {},
        Table,
        "Options of the method, the fields of its class, as strength=0.3 or "
        "scheme=ls1,granularity=tensor. The defaults are",
    )
    input_method: str = _setting(
        "uniform",
        Choice,
        "Method that quantizes the inputs of the layers; 'none' leaves them float.",
        choices=(*INPUT_METHODS, "none"),
    )
    input_options: Mapping[str, Any] = _setting(
        {}, Table, "Options of the input method, as bits=4. The defaults are"
    )
    rules: Mapping[str, Any] = _setting(
        {},
        Table,
        "Layers that want something else: {regex: {kernel: WHAT, inputs: WHAT}} or {regex: null} "
        "for layers that stay float. WHAT is a method's name, {method: NAME, option: value}, or "
        "null for float; what is left out is as for the other layers, the method too. The first "
        "regex found in a layer's path counts.",
        newest_first=True,
    )
    paper_rules: bool = _setting(
        True,
        Switch,
        "Make the exceptions of the method's paper where --rules says nothing: first and last "
        "layer at 8 bits (apot, least_squares_binary), classes never pruned (bayesian_bits).",
    )
    quantizer_rate: float = _setting(
        1.0,
        Power,
        "Multiplier of the learning rate of all variables of quantizers (bits, ranges, gates), on "
        "top of the method's own; a power of two.",
    )
    strict: bool = _setting(
        True, Switch, "Refuse a network with a layer that has weights but no quantized form."
    )

    network: str = _setting("lenet5", Choice, "Network to train.", choices=tuple(NETWORKS))
    network_options: Mapping[str, Any] = _setting(
        {}, Table, "Options of the network, as width=8,blocks=1 of resnet20. The defaults are"
    )
    init_from: str | None = _setting(
        None,
        Place,
        "A trained float model to start from, instead of training one: a .keras file, whose model "
        "takes the place of --network, or the .weights.h5 of the network.",
        suffixes=(".keras", ".weights.h5"),
    )
    dataset: str = _setting(
        "fashion_mnist",
        Choice,
        "Images: 'digits' are those of scikit-learn, 'images' a folder with one folder for each "
        "class, or train/ and test/ of such, 'tfrecords' files train*.tfrecord and test*.tfrecord.",
        choices=NAMES,
    )
    data_dir: str | None = _setting(
        None, Place, "Folder of the data set. Needed for 'images' and 'tfrecords'.", free=True
    )
    image_size: tuple[int, int] | None = _setting(
        None, Size, "Pixels that images are resized to: 32, or rows and columns as 24x32."
    )
    validation: float = _setting(
        0.1,
        Number,
        "Part of the training images held back for validation, where the data set has no images "
        "of its own for it.",
        high=0.9,
    )
    augment: str = _setting(
        "default",
        Choice,
        "Random changes of training images: 'crop' moves them by up to an eighth of their size, "
        "'flip' mirrors half of them, left to right; 'default' is what suits the data set.",
        choices=AUGMENTATIONS,
    )

    float_epochs: int = _setting(4, Whole, "Epochs of training in float.")
    learn_epochs: int = _setting(4, Whole, "Epochs in which bits are learned.")
    tune_epochs: int = _setting(3, Whole, "Epochs of tuning the weights for the frozen bits.")
    train_steps: int | None = _setting(
        None, Whole, "Most steps of each of the three phases, for short runs.", low=1
    )
    calibration_steps: int = _setting(
        8, Whole, "Batches that set the ranges of inputs before bits are learned.", low=1
    )
    batch_size: int = _setting(128, Whole, "Images a step, of all workers together.", low=1)
    eval_batch_size: int = _setting(500, Whole, "Images of a batch of validation and test.", low=1)
    optimizer: str = _setting(
        "adam",
        Choice,
        "Optimizer. The methods' own rates of bits, gates and bit planes are chosen for 'adam'.",
        choices=("adam", "sgd"),
    )
    momentum: float = _setting(0.9, Number, "Momentum of 'sgd'.", high=1.0)
    learning_rate: float = _setting(2e-3, Number, "Learning rate in float.", above=True)
    learn_learning_rate: float | None = _setting(
        None, Number, "Learning rate while bits are learned; default half of --learning_rate.",
        above=True,
    )  # fmt: skip
    tune_learning_rate: float | None = _setting(
        None, Number, "Learning rate of tuning; default that of learning.", above=True
    )
    schedule: str = _setting(
        "cosine",
        Choice,
        "Learning rate over the float phase, and over tuning: 'cosine' falls to 0, 'step' is "
        "divided by 10 after a half and again after three quarters of the phase.",
        choices=SCHEDULES,
    )
    learn_schedule: str = _setting(
        "constant", Choice, "Learning rate over the phase that learns bits.", choices=SCHEDULES
    )
    warmup: int = _setting(
        0, Whole, "Steps at the start of each phase in which the learning rate rises from 0."
    )
    weight_decay: float = _setting(
        0.0, Number, "Part of the kernels that each step takes away, times the learning rate."
    )
    early_stopping: int = _setting(
        0,
        Whole,
        "Epochs without a smaller validation loss after which a phase ends; 0 never ends it early.",
    )

    checkpoint_steps: int = _setting(
        200, Whole, "Steps between checkpoints; there is one at each end of an epoch too.", low=1,
        free=True,
    )  # fmt: skip
    keep: int = _setting(
        3, Whole, "Newest checkpoints that are kept; at least 2, if one is damaged.", low=2,
        free=True,
    )  # fmt: skip
    tensorboard: bool = _setting(
        False, Switch, "Write losses, accuracies and bits for TensorBoard to MODEL_DIR/logs.",
        free=True,
    )  # fmt: skip
    seed: int = _setting(
        0, Whole, "Seed of weights, data order, augmentation and gates.", high=2**32 - 1
    )
    deterministic: bool = _setting(
        True, Switch, "Use deterministic operations, so that a resumed run equals an unbroken one."
    )
    distribute: str = _setting(
        "none",
        Choice,
        "'mirrored' trains on all devices of this machine, 'multi_worker' on the machines that "
        "TF_CONFIG lists.",
        choices=DISTRIBUTIONS,
    )
    jit_compile: bool | None = _setting(
        None, Switch, "Compile steps by XLA; by default only where the backend needs it (JAX)."
    )

    export: str | None = _setting(
        None,
        Place,
        "File to write at the end: .tflite, or .kbits for the kerasbits C runtime.",
        suffixes=(".tflite", ".kbits"),
        free=True,
    )
    profile: str = _setting(
        "packed",
        Choice,
        "'packed' keeps every learned width and needs the kerasbits library; 'stock' runs in any "
        "TFLite interpreter.",
        choices=("packed", "stock"),
        free=True,
    )
    activations: str = _setting(
        "float",
        Choice,
        "'int8' makes a stock file that computes in integers.",
        choices=("float", "int8"),
        free=True,
    )
    narrowest: int = _setting(
        2,
        Whole,
        "Bits of the narrowest type that a stock file stores weights in: 2, 4 or 8.",
        choices=(2, 4, 8),
        free=True,
    )

    def __post_init__(self):
        for name in names():
            value = value_of(name).checked(name, getattr(self, name))
            object.__setattr__(self, name, value)
        check_agreement(self)
        recipe(self)

    def to_dict(self) -> dict[str, Any]:
        """All settings in plain types, in the order of declaration; `from_dict` reads it."""
        found = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The settings in a dictionary; missing ones have their defaults.

        Raises:
            SettingError: an unknown name, with the nearest known one; a value that is not allowed.
        """
        values = {canonical(name): value for name, value in values.items()}
        if values.get("model_dir") is None:
            raise SettingError("model_dir", "expected a folder, got none")
        return cls(**values)


FIELDS: Mapping[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(Settings)}


def names() -> Iterable[str]:
    """Names of all settings, in the order of declaration."""
    return FIELDS.keys()


def value_of(name: str) -> Value:
    """What a setting may be."""
    return FIELDS[name].metadata["value"]


def canonical(name: Any) -> str:
    """The name of a setting behind a name or alias.

    Raises:
        SettingError: there is none.
    """
    found = ALIASES.get(name, name)
    if found not in FIELDS:
        raise SettingError(str(name), f"unknown setting{nearest(name, [*FIELDS, *ALIASES])}")
    return found
