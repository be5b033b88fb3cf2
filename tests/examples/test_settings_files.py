"""Settings from YAML files and overrides: what they mean together, and what is wrong with them."""

import os

import pytest
from example_modules import EXAMPLES, example

import kerasbits as kb
from kerasbits import sites

networks = example("networks")
quantizing = example("training.quantizing")
config_files = example("training.config_files")
settings = example("training.settings")
texts = example("training.texts")
values = example("training.values")

Layer = config_files.Layer
Settings = settings.Settings


def written(folder, text, name="a.yaml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def resolved(*layers):
    return config_files.resolve([Layer("test", {"model_dir": "none/there"}), *layers])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("2E+4", 20000.0), ("1.5", 1.5), (".5", 0.5), ("-3.", -3.0),
        ("64", 64), ("-1", -1), ("010", "010"), ("1:30", "1:30"), ("0x1f", "0x1f"), ("1e", "1e"),
        ("2020-01-02", "2020-01-02"), ("e5", "e5"), (".inf", float("inf")),
        ("true", True), ("null", None), ("", None), ("none", "none"), ("bsq", "bsq"),
        ("'64'", "64"), ("[1, x]", [1, "x"]), ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)  # fmt: skip
def test_scalars_mean_what_they_look_like(text, value):
    found = texts.parsed(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("", {}),
        ("bits=4", {"bits": 4}),
        (" bits = 4 , signed=true,", {"bits": 4, "signed": True}),
        ("scheme=ls1,clamp=null", {"scheme": "ls1", "clamp": None}),
        ("{bits: 4}", {"bits": 4}),
        ("^(a|b)/.*$={kernel: {bits: 3}, inputs: null},head.1=null",
         {"^(a|b)/.*$": {"kernel": {"bits": 3}, "inputs": None}, "head.1": None}),
        ("[ab]{1,2}=null", {"[ab]{1,2}": None}),
        ("'a,b'=1", {"'a,b'": 1}),
        ("stages=[[1, 8, 1, 1], [6, 8, 1, 2]]", {"stages": [[1, 8, 1, 1], [6, 8, 1, 2]]}),
    ],
)  # fmt: skip
def test_tables_in_short(text, table):
    assert texts.parse_table(text) == table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1,b=2,a=3", "expected each name once, got 'a' twice"),
        ("bits", "expected name=value with commas between, got 'bits'"),
        ("=3", "expected name=value"),
        ("a=[1", "expected brackets and quotes in pairs"),
        ("a=1)", "expected brackets in pairs"),
        ("a=(1]", "expected brackets in pairs"),
        ("a='1", "expected brackets and quotes in pairs"),
        ("a=@x", "expected YAML .*'@'"),
        ("{a: 1", "expected YAML"),
        ("{a: 1, a: 2}", "'a' is there twice"),
        ("{a: {b: 1, b: 1}}", "'b' is there twice"),
        ("{a}}", "expected YAML"),
    ],
)
def test_tables_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        texts.parse_table(text)


def test_later_sources_win(tmp_path):
    one = written(tmp_path, "batch_size: 16\nseed: 1\nmethod_options: {bits: 3, strength: 0.5}")
    two = written(tmp_path, "seed: 2\nmethod_options:\n  strength: 1\n", "b.yaml")
    override = config_files.override_layer("seed=3, method_options.bits=4.5")
    files = [config_files.read_layer(path) for path in (one, two)]
    assert resolved(*files).seed == 2
    found = resolved(*files, override)
    assert (found.batch_size, found.seed) == (16, 3)
    assert found.method_options == {"bits": 4.5, "strength": 1}
    assert resolved(*files, Layer("x", {"method_options": None})).method_options == {}
    assert resolved(*files, Layer("x", {"seed": None})).seed == 0
    assert resolved(Layer("x", {"input_method": None})).input_method == "none"


def test_later_rules_come_first():
    early = Layer("early", {"rules": {".*": None, "^a$": {"kernel": "bsq"}}})
    late = Layer("late", {"rules": {"^b$": None, "^a$": None}})
    assert list(resolved(early, late).rules.items()) == [("^b$", None), ("^a$", None), (".*", None)]


def test_overrides():
    layer = config_files.override_layer
    assert layer("").values == {}
    assert layer("a=1,b.c=2,b.d.e=3").values == {"a": 1, "b": {"c": 2, "d.e": 3}}
    assert layer("rules.head/.*=null").values == {"rules": {"head/.*": None}}
    assert layer("{a: 1, b: {c: [2]}}").values == {"a": 1, "b": {"c": [2]}}
    assert layer("data_dir='/a,b', x=y=z").values == {"data_dir": "/a,b", "x": "y=z"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size", "^--params_override: expected name=value .* got 'batch_size'"),
        ("3=4", "expected name=value"),
        ("a.=4", "expected name=value"),
        ("a=1,a.b=2", "'a' as one value or as a table"),
        ("a=1,a=2", "expected each name once, got 'a' twice"),
        ("a.b=1,a.b=2", "^--params_override: expected each name once, got 'b' twice"),
        ("{a: 1", "^--params_override: expected YAML"),
        ("{a: 1}, b", "expected YAML"),
    ],
)
def test_overrides_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        config_files.override_layer(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b", r"'name: value' lines, got \['a', 'b'\]"),
        ("batch_size", "'name: value' lines, got 'batch_size'"),
        ("a: [1\nb: 2", "line 2: expected YAML"),
        ("batch_size: 1\nseed: 1\nbatch_size: 2", "line 3: .*'batch_size' is there twice"),
        (b"\xff\xfe", "not UTF-8"),
        ("a: !!python/object:os.system x", "expected YAML .*constructor"),
        ("[" * 3000, "expected YAML"),
        ("method_options: &x {bits: *x}", "expected bits to be a number"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        resolved(config_files.read_layer(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"no\.yaml': .*No such file"):
        config_files.read_layer(tmp_path / "no.yaml")
    with pytest.raises(ValueError, match=r"directory"):
        config_files.read_layer(tmp_path)
    assert config_files.read_layer(written(tmp_path, "# nothing\n")).values == {}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"batchsize": 3}, "batchsize: unknown setting; did you mean 'batch_size'"),
        ({"batch_size": "x"}, "batch_size: expected a whole number .* got 'x'"),
        ({"method_options": 3}, "method_options: expected names with values"),
        ({"method_options": {"bots": 3}}, "method_options: BitPruning has no option 'bots'"),
        ({"epochs": 3, "learn_epochs": 4}, "learn_epochs: expected it or 'epochs', got both"),
        ({"profile": "stock", "export": "a.kbits"}, "export: .* for profile 'stock'"),
    ],
)
def test_errors_name_the_source(found, message):
    with pytest.raises(ValueError, match=rf"^{message}.* \(file 'b\.yaml'\)$"):
        resolved(Layer("file 'a.yaml'", {"seed": 1}), Layer("file 'b.yaml'", found))


def test_a_bad_value_counts_even_if_a_later_one_would_win():
    with pytest.raises(values.SettingError, match=r"seed: .* got -1 \(early\)"):
        resolved(Layer("early", {"seed": -1}), Layer("late", {"seed": 1}))


def test_without_a_folder():
    for layers in ([], [Layer("x", {"model_dir": None})]):
        with pytest.raises(values.SettingError, match="expected --model_dir=FOLDER, got none"):
            config_files.resolve(layers)


@pytest.fixture
def run(tmp_path):
    """The folder of a run, and its settings."""
    made = Settings(
        str(tmp_path), mode="train", method="bsq", method_options={"strength": 1e-5, "bits": 3},
        rules={"z": None, "a": {"kernel": None}}, image_size=(8, 9), data_dir="ä: #b",
        learning_rate=1e-9, export="m.kbits",
    )  # fmt: skip
    config_files.write_settings(made, tmp_path / config_files.SAVED)
    return tmp_path, made


def test_there_and_back(run):
    folder, made = run
    found = config_files.read_settings(folder / config_files.SAVED)
    assert found == made
    assert list(found.rules) == ["z", "a"]
    assert config_files.read_layer(folder / config_files.SAVED).values == made.to_dict()
    assert os.listdir(folder) == [config_files.SAVED]


def test_defaults_are_written_too(run):
    lines = (run[0] / config_files.SAVED).read_text(encoding="utf-8").splitlines()
    assert {"batch_size: 128", "train_steps: null", "strict: true"} <= set(lines)
    assert [n.partition(":")[0] for n in lines if n[0].isalpha()] == list(settings.names())


def resumed(folder, **given):
    return config_files.resolve([Layer("flags", {"model_dir": str(folder), **given})])


def test_a_run_goes_on_as_it_was(run):
    folder, made = run
    expected = {**made.to_dict(), "mode": "train_and_eval"}
    assert resumed(folder).to_dict() == expected
    assert resumed(folder, method="bsq", image_size=[8, 9]).to_dict() == expected
    changed = resumed(folder, mode="eval", keep=5, data_dir="/c", export=None)
    assert changed.to_dict() == {**expected, "mode": "eval", "keep": 5, "data_dir": "/c",
                                 "export": None}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 64}, "batch_size: expected 128, .* got 64; use another --model_dir"),
        ({"method": "apot"}, "method: expected 'bsq', .* got 'apot'"),
        ({"method_options": {"bits": 3}}, "method_options: expected .* got {'bits': 3}"),
        ({"rules": None}, "rules: expected .* got {}"),
        ({"epochs": 5}, "learn_epochs: expected 4, .* got 5"),
    ],
)
def test_a_run_cannot_go_on_as_another(run, given, message):
    with pytest.raises(values.SettingError, match=rf"^{message}.* \(flags\)$"):
        resumed(run[0], **given)


def test_a_broken_settings_file_of_a_run(run):
    path = run[0] / config_files.SAVED
    path.write_text(path.read_text(encoding="utf-8").replace("bsq", "magic"), encoding="utf-8")
    with pytest.raises(values.SettingError, match=r"method: .* got 'magic' \(file '.*yaml'\)"):
        resumed(run[0])


def test_what_a_run_says_is_named_where_it_does_not_agree(run):
    with pytest.raises(values.SettingError, match=r"export: .* got 'm.kbits' \(file '.*yaml'\)"):
        resumed(run[0], profile="stock")


def test_a_file_is_whole_or_not_there(run, monkeypatch):
    folder, _ = run
    before = (folder / config_files.SAVED).read_bytes()

    def broken(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        config_files.write_settings(Settings("other"), folder / config_files.SAVED)
    assert (folder / config_files.SAVED).read_bytes() == before
    assert os.listdir(folder) == [config_files.SAVED]


CONFIGS = sorted((EXAMPLES / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_files_of_the_examples(path):
    layer = config_files.read_layer(path)
    assert not {"model_dir", "export", "data_dir"} & set(layer.values)  # whose are they?
    made = resolved(layer)
    assert all(getattr(made, name) == value for name, value in layer.values.items())


def test_files_of_the_examples_together():
    paths = {path.stem: path for path in CONFIGS}
    base, mixed = (config_files.read_layer(paths[n]) for n in ("resnet20", "mixed_precision"))
    made = resolved(base, mixed)
    assert made.learn_learning_rate == 0.001
    model = networks.NETWORKS[made.network]((8, 8, 1), 10)
    chosen = quantizing.recipe(made, model)
    q = kb.quantize_model(model, chosen.kernel, chosen.inputs, chosen.rules, strict=True)
    kernels = {place.path: place.quantizer for place in sites.places(q, "kernel")}
    inputs = {place.path: place.quantizer for place in sites.places(q, "input")}
    assert kernels["conv1"] == kb.Uniform(8)
    assert "conv1" not in inputs
    assert kernels["stage2_block1_conv1"] == kb.BitPruning(strength=0.3, granularity="channel")
    assert kernels["stage3_block1_conv1"] == kb.BitPruning(strength=1.0, granularity="channel")
    assert inputs["stage2_block1_shortcut"] == kb.Uniform(6)
    assert inputs["stage3_block1_shortcut"] == kb.Uniform(8)
    assert "logits" not in kernels
