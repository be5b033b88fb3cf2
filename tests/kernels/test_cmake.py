"""The build for C projects: tests, installation, and projects that link to the library."""

import re
import shutil

import pytest
from kernels.machines_for_tests import KERNELS, output_of

CONSUMER = """
cmake_minimum_required(VERSION 3.14)
project(consumer C)
if(KERASBITS_SOURCE)
  add_subdirectory(${KERASBITS_SOURCE} kerasbits)
else()
  find_package(kerasbits 0.1 REQUIRED)
endif()
add_executable(consumer main.c)
target_link_libraries(consumer PRIVATE kerasbits::kerasbits)
"""
MAIN = """
#include <kb.h>
#include <kb_model.h>
#include <stdio.h>
int main(void) {
  kb_model* model;
  char error[64];
  if (kb_model_open("none", 4, 0, &model, error, sizeof error)) puts(kb_isa());
  return model != NULL;
}
"""

pytestmark = pytest.mark.skipif(
    not shutil.which("cmake"), reason="needs cmake; `make tools` installs it"
)


def build(source, folder, *options):
    output_of(["cmake", "-S", source, "-B", folder, *(f"-D{option}" for option in options)])
    return output_of(["cmake", "--build", folder, "-j2"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cmake")
    options = "KERASBITS_TESTS=ON", "KERASBITS_WERROR=ON", f"CMAKE_INSTALL_PREFIX={folder / 'to'}"
    build(KERNELS, folder, *options)
    return folder


@pytest.fixture
def consumer(tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER)
    (tmp_path / "main.c").write_text(MAIN)
    return tmp_path


def test_c_tests_run(built):
    printed = output_of(["ctest", "--test-dir", built, "--output-on-failure", "--verbose"])
    for source in (KERNELS.parents[1] / "tests/kernels").glob("test_*.c"):
        assert re.search(rf"{source.stem} \.+ +Passed", printed), printed


def test_an_installed_library_is_found(built, consumer):
    output_of(["cmake", "--install", built])
    build(consumer, consumer / "out", f"CMAKE_PREFIX_PATH={built / 'to'}")
    assert output_of([consumer / "out" / "consumer"], KERASBITS_ISA="scalar") == "scalar\n"
    installed = {path.name for path in (built / "to/include").rglob("*.*")}
    assert installed == {"kb.h", "kb_delegate.h", "kb_model.h", "module.modulemap"}


def test_a_shared_library_within_another_project(consumer):
    build(consumer, consumer / "out", f"KERASBITS_SOURCE={KERNELS}", "BUILD_SHARED_LIBS=ON")
    library = consumer / "out/kerasbits/libkerasbits.so"
    listing = output_of(["readelf", "-d", consumer / "out/consumer"])
    assert "libkerasbits.so" in listing
    output_of([consumer / "out/consumer"])
    names = re.findall(r" [TDBR] (\w+)$", output_of(["nm", "-D", library]), re.MULTILINE)
    assert all(re.match("kb_|tflite_plugin_", name) for name in names), names
    assert {"kb_op_run", "kb_model_run", "tflite_plugin_create_delegate"} <= set(names)


@pytest.mark.parametrize("library", ["SHARED", "STATIC"])
@pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "aarch64-linux-gnu"])
def test_pages_of_16_kb_on_android(tmp_path, triple, library):
    """The library itself, and an app's that the static library becomes part of.

    CMake's settings for Android, with a compiler for Linux in place of an NDK: version 1 says
    that the toolchain file sees to everything. That compiler aligns to 4 KB or to 64 KB.
    """
    if not shutil.which(f"{triple}-gcc"):
        pytest.skip(f"needs {triple}-gcc")
    (tmp_path / "toolchain.cmake").write_text(
        "set(CMAKE_SYSTEM_NAME Android)\nset(CMAKE_SYSTEM_VERSION 1)\n"
        f"set(CMAKE_C_COMPILER {triple}-gcc)\n"
    )
    (tmp_path / "app.c").write_text("#include <kb.h>\nconst char* app(void) { return kb_isa(); }\n")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.14)\nproject(app C)\n"
        f"add_subdirectory({KERNELS} kerasbits)\nadd_library(app SHARED app.c)\n"
        "target_link_libraries(app PRIVATE kerasbits::kerasbits)\n"
    )
    toolchain = f"CMAKE_TOOLCHAIN_FILE={tmp_path / 'toolchain.cmake'}"
    build(tmp_path, tmp_path / "out", toolchain, f"BUILD_SHARED_LIBS={library == 'SHARED'}")
    names = ["libapp.so", "kerasbits/libkerasbits.so"][: 1 + (library == "SHARED")]
    for name in names:
        segments = output_of(["readelf", "-lW", tmp_path / "out" / name])
        alignments = re.findall(r"^ +LOAD .* (0x\w+)$", segments, re.MULTILINE)
        assert len(alignments) > 1, segments
        assert set(alignments) == {"0x4000"}, segments


def test_versions_agree():
    setup = (KERNELS.parents[1] / "setup.py").read_text()
    version = re.search(r'version="(.+?)"', setup).group(1)
    assert f"project(kerasbits VERSION {version} " in (KERNELS / "CMakeLists.txt").read_text()


def test_swift_and_objective_c_see_a_module(tmp_path):
    if not shutil.which("clang"):
        pytest.skip("needs clang")
    (tmp_path / "main.m").write_text(
        "@import Kerasbits;\nint main(void) { kb_model_close(0); return KB_MAX_RANK != 8; }\n"
    )
    flags = ["-fmodules", f"-fmodules-cache-path={tmp_path}", "-I", KERNELS, "-fsyntax-only"]
    output_of(["clang", *flags, tmp_path / "main.m"])
