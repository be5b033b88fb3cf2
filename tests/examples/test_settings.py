"""Settings: defaults, checks of each field, and what fields say together."""

import dataclasses

import pytest
from example_modules import example

settings = example("training.settings")
values = example("training.values")
datasets = example("datasets")

Settings = settings.Settings


def test_defaults_are_allowed_and_described():
    made = Settings("runs/1")
    for field in dataclasses.fields(Settings):
        kind = settings.value_of(field.name)
        value = getattr(made, field.name)
        assert kind.checked(field.name, value) == value
        assert len(kind.help) > 8
        assert kind.optional == (field.default is None)
    assert list(settings.names()) == [field.name for field in dataclasses.fields(Settings)]


def test_values_are_brought_into_their_types(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    made = Settings("~/run", learning_rate=1, batch_size=64.0, image_size=32, data_dir="a/~b")
    assert made.model_dir == "/home/someone/run"
    assert made.data_dir == "a/~b"
    assert type(made.learning_rate) is float
    assert type(made.batch_size) is int
    assert made.image_size == (32, 32)
    assert Settings("x", image_size=[24, 32]).image_size == (24, 32)
    assert Settings("x", input_method=None).input_method == "none"


def test_tables_are_copies():
    options = {"bits": 3}
    made = Settings("x", method_options=options)
    options["bits"] = 4
    assert made.method_options == {"bits": 3}
    assert Settings("x").rules is not Settings("x").rules


def test_dictionaries_there_and_back():
    made = Settings("x", method="bsq", image_size=(3, 4), rules={"b": None, "a": None})
    plain = made.to_dict()
    assert plain["image_size"] == [3, 4]
    assert list(plain["rules"]) == ["b", "a"]
    assert Settings.from_dict(plain) == made
    assert Settings.from_dict({"model_dir": "x", "epochs": 9}).learn_epochs == 9


BAD = [
    ("mode", "test", "expected one of train, eval, train_and_eval, export, got 'test'"),
    ("method", None, "expected one of bitpruning, .* got None"),
    ("dataset", "mnist", "expected one of fashion_mnist, digits, .* got 'mnist'"),
    ("batch_size", 0, "expected a whole number of at least 1, got 0"),
    ("batch_size", 2.5, "expected a whole number of at least 1, got 2.5"),
    ("batch_size", True, "expected a whole number of at least 1, got True"),
    ("batch_size", "64", "expected a whole number of at least 1, got '64'"),
    ("batch_size", float("inf"), "expected a whole number .* got inf"),
    ("batch_size", None, "expected a whole number .* got None"),
    ("seed", -1, "expected a whole number of at least 0 and at most 4294967295, got -1"),
    ("seed", 2**32, "at least 0 and at most 4294967295, got 4294967296"),
    ("train_steps", 0, "at least 1, got 0"),
    ("keep", 1, "at least 2, got 1"),
    ("narrowest", 3, "expected one of 2, 4, 8, got 3"),
    ("learning_rate", 0.0, "expected a number of more than 0, got 0.0"),
    ("learning_rate", float("nan"), "expected a number of more than 0, got nan"),
    ("learning_rate", "1e-3", "expected a number of more than 0, got '1e-3'"),
    ("momentum", 1.5, "expected a number of at least 0 and at most 1, got 1.5"),
    ("validation", 0.95, "at most 0.9, got 0.95"),
    ("weight_decay", -0.1, "at least 0, got -0.1"),
    ("quantizer_rate", 3, "expected a power of two, .* got 3"),
    ("quantizer_rate", 0, "expected a power of two, .* got 0"),
    ("strict", "yes", "expected true or false, got 'yes'"),
    ("strict", 1, "expected true or false, got 1"),
    ("image_size", 0, "rows and columns as 24x32, got 0"),
    ("image_size", (1, 2, 3), r"rows and columns .* got \(1, 2, 3\)"),
    ("image_size", (True, 2), "rows and columns"),
    ("image_size", "32", "rows and columns"),
    ("method_options", [1], r"expected names with values, .* got \[1\]"),
    ("rules", {1: None}, r"expected names with values, .* got \{1: None\}"),
    ("model_dir", "", "expected a path, got ''"),
    ("data_dir", 3, "expected a path, got 3"),
    ("export", "m.onnx", "ending in .tflite or .kbits, got 'm.onnx'"),
    ("init_from", "m.h5", "ending in .keras or .weights.h5, got 'm.h5'"),
    ("network_options", {"width": 3}, "'lenet5' has no option 'width'; it has none"),
    ("method_options", {"bit": 3}, "BitPruning has no option 'bit'; did you mean 'bits'"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_bad_values_are_named(name, value, message):
    with pytest.raises(values.SettingError, match=f"^{name}: .*{message}") as caught:
        Settings(**{"model_dir": "x", name: value})
    assert caught.value.name == name
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({"mode": "export"}, "export", "expected a file to write"),
        ({"profile": "stock", "export": "m.kbits"}, "export", "for profile 'stock'"),
        ({"activations": "int8"}, "activations", "needs profile 'stock', got 'packed'"),
        ({"dataset": "images"}, "data_dir", "folder of dataset 'images', got none"),
        ({"dataset": "tfrecords"}, "data_dir", "folder of dataset 'tfrecords', got none"),
        ({"early_stopping": 3, "validation": 0}, "validation", "--early_stopping needs it"),
        ({"network": "resnet8", "network_options": {"wdth": 3}}, "network_options", "'width'"),
    ],
)
def test_settings_have_to_agree(changes, name, message):
    with pytest.raises(values.SettingError, match=f"^{name}: .*{message}"):
        Settings("x", **changes)


def test_settings_that_agree(tmp_path):
    Settings("x", mode="export", export="m.tflite", profile="stock", activations="int8")
    Settings("x", dataset="tfrecords", data_dir="d", early_stopping=3, validation=0)
    Settings("x", network="resnet20", network_options={"width": 8, "blocks": 1})
    (tmp_path / "m.tflite").mkdir()
    with pytest.raises(values.SettingError, match=r"export: .* got the folder"):
        Settings("x", export=tmp_path / "m.tflite")


def test_unknown_names_bring_the_nearest():
    with pytest.raises(values.SettingError, match=r"learnin_rate: .* mean 'learning_rate'"):
        Settings.from_dict({"model_dir": "x", "learnin_rate": 1})
    with pytest.raises(values.SettingError, match="qqq: unknown setting; see --helpfull"):
        Settings.from_dict({"model_dir": "x", "qqq": 1})
    with pytest.raises(values.SettingError, match="model_dir: expected a folder"):
        Settings.from_dict({})


def test_what_may_change_when_a_run_goes_on():
    free = {name for name in settings.names() if settings.value_of(name).free}
    assert free == {"model_dir", "mode", "data_dir", "checkpoint_steps", "keep", "tensorboard",
                    "export", "profile", "activations", "narrowest"}  # fmt: skip


def test_datasets_are_those_that_exist():
    assert settings.value_of("dataset").choices == tuple(datasets.NAMES)
