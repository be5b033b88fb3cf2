"""The wheel: what is in it, and that it works where there is neither compiler nor repository."""

import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = pathlib.Path(__file__).with_name("use_package.py")
SHIPPED = ("*.c", "*.h", "*.inc", "*.modulemap", "Makefile", "CMakeLists.txt")
LIBRARY = "tflite_export/libkerasbits.so"


def run(command, **options):
    """Output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def pip(*arguments, **options):
    return run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what the repository holds."""
    folder = tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("*.so", "__pycache__", "build", "*.egg-info")
    for package in ("kerasbits", "tflite_export"):
        shutil.copytree(ROOT / package, folder / "source" / package, ignore=leave)
    for name in ("setup.py", "setup.cfg", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    pip(
        "wheel", ".", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder),
        cwd=folder / "source",
    )  # fmt: skip
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the packages of the wheel, as `site-packages` holds them."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    pip("install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def test_one_wheel_serves_every_python_of_a_platform(wheel):
    tag = wheel.name.removesuffix(".whl").split("-", 2)[2]
    assert tag.startswith("py3-none-")
    if sys.platform == "linux":
        assert tag == f"py3-none-linux_{platform.machine()}"


def test_it_holds_packages_library_schema_and_sources(names):
    wanted = {LIBRARY, "tflite_export/kbits.fbs"}
    for package in ("kerasbits", "tflite_export"):
        wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
    kernels = ROOT / "tflite_export" / "kernels"
    sources = [path for pattern in SHIPPED for path in kernels.glob(pattern)]
    wanted |= {str(path.relative_to(ROOT)) for path in sources}
    assert len(sources) > 30
    assert not wanted - names


def test_it_holds_nothing_else(names):
    folders = {name.split("/")[0] for name in names}
    assert folders - {"kerasbits", "tflite_export"} == {"kerasbits-0.1.0.dist-info"}
    endings = {name.rsplit(".", 1)[-1] for name in names if "dist-info" not in name}
    code = {
        "py",
        "so",
        "fbs",
        "c",
        "h",
        "inc",
        "modulemap",
        "txt",
        "tflite_export/kernels/Makefile",
    }
    assert endings <= {*code, "tflite_export/kernels/Makefile"}


def test_it_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        folder = "kerasbits-0.1.0.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode()
        licenses = [n for n in archive.namelist() if folder in n and n.endswith("LICENSE")]
        tags = archive.read(f"{folder}/WHEEL").decode()
    head, _, description = metadata.partition("\n\n")
    for line in ("Name: kerasbits", "Requires-Python: >=3.11", "Requires-Dist: keras>=3.15"):
        assert line in head
    assert "Description-Content-Type: text/markdown" in head
    assert description.startswith("# kerasbits")
    assert len(licenses) == 1
    assert "Root-Is-Purelib: false" in tags


def use(site, tmp_path, **variables):
    """What `use_package.py` tells with the packages in `site`, and no compiler on the path."""
    tmp_path.joinpath("bin").mkdir()
    variables |= {"PATH": str(tmp_path / "bin"), "PYTHONPATH": str(site), "HOME": str(tmp_path)}
    variables |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    said = run(
        [sys.executable, str(PROGRAM), str(tmp_path)], cwd=tmp_path, env={**kept, **variables}
    )
    told = json.loads(said.splitlines()[-1])
    assert all(path.startswith(str(site)) for path in told["packages"])
    return told


def test_it_works_without_compiler_and_repository(installed, tmp_path):
    told = use(installed, tmp_path)
    assert told["warnings"] == []
    for kind in ("packed", "stock", "kbits"):
        assert told[kind] < 1e-4, told


def test_without_the_library_numpy_does_what_it_can(installed, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(installed, site)
    (site / LIBRARY).unlink()
    told = use(site, tmp_path)
    assert len(told["warnings"]) == 1, told["warnings"]
    assert "setup.py build_ext" in told["warnings"][0]
    assert told["packed"].startswith("FileNotFoundError: expected the C library"), told
    for kind in ("stock", "kbits"):
        assert told[kind] < 1e-4, told
