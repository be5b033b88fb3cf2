"""Symbols of ELF files, and where the flags of a processor lie among cpuinfo's answers."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from benchmarks import avx2_only, elf

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = {"pni", "ssse3", "sse4_1", "sse4_2", "avx", "fma", "f16c", "avx2", "avx512f", "avx512bw"}


def row(flags, before=5):
    """cpuinfo's answers for a processor, other answers around them."""
    named = [int(name in flags) for name in avx2_only.ORDER]
    return bytes([1] * before + named + [1, 0, 1, 64])


def test_flags_are_found_by_what_they_say():
    assert avx2_only.place(row(FLAGS), FLAGS) == 5


def test_flags_that_disagree_are_no_place():
    for flags in (FLAGS - {"avx512bw"}, FLAGS | {"avx512dq"}, FLAGS - {"f16c"}):
        with pytest.raises(avx2_only.NotHeld, match="got 0"):
            avx2_only.place(row(FLAGS), flags)


def test_two_places_are_no_place():
    with pytest.raises(avx2_only.NotHeld, match="got 2"):
        avx2_only.place(row(FLAGS) + row(FLAGS), FLAGS)


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="needs ELF and cc")
def test_local_symbols(tmp_path):
    source = tmp_path / "x.c"
    source.write_text(
        "static __attribute__((used)) int hidden[3] = {1, 2, 3};\n"
        "static __attribute__((used, noinline)) int inner(void) { return hidden[0]; }\n"
        "int outer(void) { return inner(); }\n"
    )
    library = tmp_path / "x.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    found = elf.symbols(library, ("hidden", "inner", "outer", "absent"))
    assert set(found) == {"hidden", "inner", "outer"}
    assert found["hidden"][1] == 12
    listed = subprocess.run(["nm", library], check=True, capture_output=True, text=True).stdout
    addresses = {line.split()[-1]: line.split()[0] for line in listed.splitlines()}
    assert {name: at for name, (at, _) in found.items()} == {
        name: int(addresses[name], 16) for name in found
    }
    subprocess.run(["strip", library], check=True)
    assert elf.symbols(library, ("hidden", "inner")) == {}
    data = library.read_bytes()
    library.write_bytes(data[: len(data) - 300])
    with pytest.raises(ValueError, match=r"x\.so.*whole tables"):
        elf.symbols(library, ("hidden",))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"MZ" + bytes(100))
    with pytest.raises(ValueError, match="64-bit ELF"):
        elf.symbols(tmp_path / "x", ("a",))
    with pytest.raises(OSError, match="No such file"):
        elf.symbols(tmp_path / "y", ("a",))


HELD = """
from benchmarks import avx2_only
from ai_edge_litert.interpreter import Interpreter
try:
    avx2_only.hold()
except avx2_only.NotHeld as error:
    print("not held:", error)
else:
    avx2_only.check()
    flags = {f for f in avx2_only.linux_flags() if not f.startswith("avx512")} - {"avx_vnni"}
    print(avx2_only.place(bytes(avx2_only._row()), flags) >= 0)
"""


def test_holding_is_done_or_refused_in_words():
    done = subprocess.run(
        [sys.executable, "-c", HELD], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(("True", "not held: expected"))
