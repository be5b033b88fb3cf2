"""Who may import whom, read from the sources; and how long a source may be."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LONGEST = 350
METHODS = ("apot", "bayesian_bits", "bitpruning", "bsq", "least_squares", "uniform")
HEAVY = ("tensorflow", "tensorflow_model_optimization", "tf_keras", "tflite_export", "jax", "torch")


def sources(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path, top_level_only=False):
    """Full names of what a file imports: `from a.b import c` gives `a.b.c`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{name.name}" for name in node.names]
    return found


def attributes(path):
    """Dotted names used in a file, as `tf.keras.Model`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]


def is_below(name, *packages):
    return any(name == p or name.startswith(p + ".") for p in packages)


def standard(name):
    return name.split(".")[0] in sys.stdlib_module_names


def check(paths, *allowed):
    """Each import is of the standard library or below one of `allowed`."""
    assert paths
    for path in paths:
        for name in imports(path):
            assert standard(name) or is_below(name, *allowed), f"{path.name} imports {name}"


def test_maths_are_pure():
    check(
        sources("kerasbits/maths"),
        "keras.ops", "keras.random", "kerasbits.maths",
    )  # fmt: skip
    for path in sources("kerasbits/maths"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        # Records of constants at most: nothing that could hold state.
        assert all([ast.unparse(b) for b in node.bases] == ["NamedTuple"] for node in classes), path


@pytest.mark.parametrize("name", ["packed", "geometry", "bops"])
def test_records_need_numpy_alone(name):
    check([ROOT / "kerasbits" / f"{name}.py"], "numpy")


def test_quantizers_know_no_host():
    check(
        sources("kerasbits/quantizers"),
        "kerasbits.maths", "kerasbits.packed", "kerasbits.quantizers", "kerasbits.replicas",
        "keras", "numpy",
    )  # fmt: skip
    check([ROOT / "kerasbits/replicas.py"], "keras.ops")


def test_methods_know_only_their_own_maths():
    for method in METHODS:
        path = ROOT / "kerasbits/quantizers" / f"{method}.py"
        others = [f"kerasbits.quantizers.{m}" for m in METHODS]
        assert not [name for name in imports(path) if is_below(name, *others)], path


def test_layers_and_models_need_no_maths():
    check(
        [*sources("kerasbits/layers"), ROOT / "kerasbits/model.py"],
        "kerasbits.geometry", "kerasbits.host", "kerasbits.layers", "kerasbits.packed",
        "kerasbits.quantizers", "kerasbits.rules", "kerasbits.sites",
        "keras", "numpy",
    )  # fmt: skip


NO_HOST = ("sites", "lifecycle", "report", "slots", "between_epochs", "budget")


def test_what_works_on_any_host_names_no_host():
    files = [ROOT / "kerasbits" / f"{name}.py" for name in NO_HOST]
    check(
        files,
        "kerasbits.quantizers.base", "kerasbits.packed", "kerasbits.bops", "kerasbits.sites",
        "kerasbits.slots", "kerasbits.lifecycle", "kerasbits.report", "kerasbits.between_epochs",
        "keras.ops", "numpy", "rich",
    )  # fmt: skip


def test_kerasbits_is_light_and_needs_no_exporter():
    for path in sources("kerasbits"):
        if "tfmot" in path.parts:
            continue
        for name in imports(path):
            assert not is_below(name, *HEAVY), f"{path} imports {name}"
            assert not is_below(name, "kerasbits.tfmot"), f"{path} imports {name}"


def test_the_exporter_knows_no_method():
    allowed = ("packed", "geometry", "sites", "lifecycle", "quantizers.base", "bops")
    for path in sources("tflite_export"):
        assert not [name for name in imports(path) if is_below(name, "tflite_export.convert")], path
        for name in imports(path):
            if path.name == "loading.py" and is_below(name, "kerasbits.tfmot"):
                assert name not in imports(path, top_level_only=True), "only for tf_keras models"
            elif (path.name, name) == ("convert.py", "kerasbits"):
                # A program: it quantizes float models by the public functions, as users would.
                used = {name for name in attributes(path) if name.startswith("kb.")}
                assert used == {"kb.quantize_model", "kb.Uniform", "kb.calibrate", "kb.freeze"}
            elif is_below(name, "kerasbits"):
                assert is_below(name, *(f"kerasbits.{a}" for a in allowed)), f"{path}: {name}"


PACKAGES = {
    "blob": ("blob", "layer"),
    "kbits": (
        "blob",
        "collect",
        "folding",
        "layer",
        "marked",
        "native",
        "native_handle",
        "written",
    ),
    "stock": ("collect", "graph", "marked", "layer", "written", "tflite_runner", "samples"),
    "in_numpy": ("blob", "kbits.container", "layer"),
    "contents": ("blob", "kbits.container", "layer"),
    "timing": ("blob", "contents", "interpreter", "kbits.container"),
}
"""What the packages of the exporter may import of it, beside themselves and what reads TFLite."""

READS_TFLITE = ("flatbuffer", "rewriting", "shapes", "kbits_generated", "tflite_writer")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_of_the_exporter_run_one_way(package):
    allowed = (package, *PACKAGES[package], *READS_TFLITE)
    for path in sources(f"tflite_export/{package}"):
        for name in imports(path):
            if is_below(name, "tflite_export"):
                assert is_below(name, *(f"tflite_export.{a}" for a in allowed)), f"{path}: {name}"


def test_no_imports_for_types_alone():
    """They would hide that two files need each other."""
    for path in sources("kerasbits", "tflite_export", "examples"):
        assert not [name for name in imports(path) if name.endswith("TYPE_CHECKING")], path


def test_examples_use_public_names():
    for path in sources("examples"):
        for name in imports(path):
            for package in ("kerasbits", "tflite_export"):
                depth = 0 if name == package else 1
                if is_below(name, package):
                    public = ("kerasbits.tfmot", "kerasbits.layers", "kerasbits.callbacks")
                    assert name.count(".") <= depth or is_below(name, *public), f"{path}: {name}"


def test_only_public_keras():
    for path in sources("kerasbits", "tflite_export", "examples"):
        for name in [*imports(path), *attributes(path)]:
            assert not is_below(name, "keras.src", "tf.keras", "tensorflow.keras"), (
                f"{path}: {name}"
            )


@pytest.mark.parametrize("folder", ["kerasbits", "tflite_export", "examples", "benchmarks"])
def test_no_long_files(folder):
    long = {p.name: n for p in sources(folder) if (n := len(p.read_text().splitlines())) > LONGEST}
    long.pop("kbits_generated.py", None)
    assert not long


def test_no_drawers_for_everything():
    names = {
        path.stem
        for path in sources("kerasbits", "tflite_export", "examples", "benchmarks", "tests")
    }
    assert not names & {"utils", "util", "common", "misc", "helpers"}


def test_the_checks_see_a_breach(tmp_path):
    """The reader finds imports inside functions too."""
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    import tensorflow as tf\n    return tf.keras.Model\n")
    assert imports(path) == ["tensorflow"]
    assert imports(path, top_level_only=True) == []
    assert "tf.keras.Model" in attributes(path)
    with pytest.raises(AssertionError, match=r"bad\.py imports tensorflow"):
        check([path], "keras")


def test_importing_kerasbits_leaves_tfmot_alone():
    """Importing tfmot would switch `tf.keras` to Keras 2 for the whole process."""
    code = (
        "import sys, kerasbits; "
        "bad = {'tensorflow_model_optimization', 'tf_keras', 'tflite_export', 'kerasbits.tfmot'}; "
        "sys.exit(str(bad & set(sys.modules)) if bad & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
