"""The settings as flags: declared on demand, merged with files and overrides, explained by help."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
from absl import flags
from example_modules import EXAMPLES, example

settings = example("training.settings")
training_flags = example("training.flags")
recipes = example("recipes")
values = example("training.values")

NOT_SETTINGS = {"config_file", "params_override"}


def declared():
    found = flags.FlagValues()
    training_flags.define_flags(found)
    return found


def given(*arguments, folder="none/there"):
    found = declared()
    assert found(["train", f"--model_dir={folder}", *arguments]) == ["train"]
    return training_flags.settings_from_flags(found)


def test_each_setting_has_a_flag_with_its_default():
    found = declared()
    assert set(found) == {*settings.names(), *settings.ALIASES, *NOT_SETTINGS}
    found(["train"])
    made = settings.Settings("x")
    for name in settings.names():
        value = found[name].value
        if name != "model_dir":
            assert value == getattr(made, name) or (value is None and getattr(made, name) == {})


def test_no_flags_no_changes():
    assert given() == settings.Settings("none/there")


def test_two_programs_can_declare_them():
    first, second = declared(), declared()
    first(["a", "--seed=1"])
    second(["b", "--seed=2"])
    assert (first.seed, second.seed) == (1, 2)


def test_flags_of_each_kind():
    found = given(
        "--method=bsq", "--seed=5", "--learning_rate=1e-3", "--quantizer_rate=0.25", "--nostrict",
        "--jit_compile", "--image_size=24x32", "--data_dir=d", "--epochs=7",
        "--method_options=bits=3,strength=1e-2", "--method_options", "{rate: 2.0}",
        "--rules=^b$=null", '--rules={"^a$": {kernel: {bits: 2}}}',
    )  # fmt: skip
    assert (found.method, found.seed, found.data_dir) == ("bsq", 5, "d")
    assert (found.learning_rate, found.quantizer_rate) == (0.001, 0.25)
    assert (found.strict, found.jit_compile) == (False, True)
    assert given("--nojit_compile").jit_compile is False
    assert found.image_size == (24, 32)
    assert given("--image_size=9").image_size == (9, 9)
    assert found.learn_epochs == 7
    assert found.method_options == {"bits": 3, "strength": 0.01, "rate": 2.0}
    assert list(found.rules.items()) == [("^b$", None), ("^a$", {"kernel": {"bits": 2}})]


def test_a_flag_given_as_its_default_is_given(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("seed: 3\nbatch_size: 16")
    found = given(f"--config_file={path}", "--seed=0")
    assert (found.seed, found.batch_size) == (0, 16)


def test_defaults_files_flags_overrides(tmp_path):
    for name, text in (("a", "seed: 1\nkeep: 4\nwarmup: 9"), ("b", "seed: 2\nkeep: 5")):
        (tmp_path / name).write_text(text)
    files = [f"--config_file={tmp_path / name}" for name in "ab"]
    assert given(*files).seed == 2
    assert given(*reversed(files)).seed == 1
    found = given(*files, "--keep=6", "--seed=3", "--params_override=seed=4",
                  "--params_override={seed: 5, warmup: null}")  # fmt: skip
    assert (found.seed, found.keep, found.warmup) == (5, 6, 0)


def test_a_folder_may_come_from_a_file(tmp_path):
    (tmp_path / "a").write_text("model_dir: some/where")
    found = declared()
    found(["train", f"--config_file={tmp_path / 'a'}"])
    assert training_flags.settings_from_flags(found).model_dir == "some/where"


def test_flag_files(tmp_path):
    """absl's own: settings in a file with a flag a line."""
    (tmp_path / "flags").write_text("--seed=4\n--nostrict\n")
    found = given(f"--flagfile={tmp_path / 'flags'}")
    assert (found.seed, found.strict) == (4, False)


def test_flags_that_a_program_sets_count():
    found = declared()
    found(["train", "--model_dir=x"])
    found.seed = 8
    assert training_flags.settings_from_flags(found).seed == 8


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--method=magic", "value should be one of <bitpruning"),
        ("--batch_size=x", "--batch_size=x: invalid"),
        ("--strict=maybe", "--strict=maybe"),
        ("--image_size=3x4x5", "rows and columns as 24x32"),
        ("--image_size=-3", "rows and columns as 24x32"),
        ("--image_size=", "rows and columns as 24x32"),
        ("--method_options=bits", "expected name=value"),
        ("--rules={a", "expected YAML"),
        ("--batchsize=3", "Did you mean: batch_size"),
    ],
)
def test_absl_refuses(argument, message):
    with pytest.raises(flags.Error, match=message):
        declared()(["train", argument])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--batch_size=0", r"^batch_size: expected .* got 0 \(flag --batch_size\)$"),
        ("--epochs=-1", r"^learn_epochs: expected .* got -1 \(flag --learn_epochs\)$"),
        (
            "--method_options=bots=3",
            r"^method_options: .* mean 'bits'\? \(flag --method_options\)$",
        ),
        ("--params_override=batchsize=3", r"^batchsize: .*'batch_size'\? \(--params_override\)$"),
        ("--params_override=batch_size", r"^--params_override: expected name=value"),
        ("--config_file=none.yaml", r"^file 'none\.yaml': expected settings in YAML"),
        ("--export=m.onnx", r"^export: .* got 'm\.onnx' \(flag --export\)$"),
        ("--export=", r"^export: expected a path, got ''"),
    ],
)
def test_errors_name_the_flag(argument, message):
    with pytest.raises(ValueError, match=message):
        given(argument)


def test_no_folder():
    found = declared()
    found(["train"])
    with pytest.raises(values.SettingError, match="expected --model_dir=FOLDER, got none"):
        training_flags.settings_from_flags(found)


def test_flags_into_a_string_and_back():
    found = declared()
    found(["train", "--image_size=24x32", "--rules=^a[b,c]$={inputs: null}", "--model_dir=x"])
    again = declared()
    again(["train", *found.flags_into_string().splitlines()])
    assert training_flags.settings_from_flags(again) == training_flags.settings_from_flags(found)


PROGRAM = f"""'Does things.'
import sys
sys.path[:0] = [{str(EXAMPLES)!r}]
from absl import app, flags
from training.flags import define_flags

if __name__ == "__main__":
    print("before:", sorted({{"method", "model_dir", "config_file"}} & set(flags.FLAGS)))
    define_flags()
    app.run(lambda argv: None)
"""


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    """What a program with these flags prints when it is asked for help."""
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, path, "--help"], capture_output=True, text=True, env=environment
    )
    return done.stdout


def test_importing_declares_nothing(helped):
    assert helped.splitlines()[0] == "before: []"


def test_help_explains_all(helped):
    """`--help` shows the flags of the main module, and these count as its own."""
    assert "Does things." in helped
    flags_of_program = helped.partition("program.py:")[2]
    for name in (*settings.names(), *NOT_SETTINGS, "epochs"):
        assert re.search(rf"\n  --(\[no\])?{name}:\s", flags_of_program), name
    words = " ".join(helped.split())
    for method, quantizer in recipes.METHODS.items():
        first = dataclasses.fields(quantizer)[0].name
        assert f"{method}: {first}={getattr(quantizer, first)}, " in words
    assert "uniform: bits=4, granularity=tensor, signed=null." in words
    assert "resnet20: width=16, blocks=3." in words
    assert "(a table: name=value with commas between, or YAML in braces)" in words
    assert all(len(line) <= 80 for line in helped.splitlines() if "program.py" not in line)
