"""What the C library adds to an app, by processor and CMake build type: docs/mobile.md.

Needs cmake and the compilers of the processors (`make tools`); a processor without one is left out.
With a .kbits file, also the time of a run of it on this machine, the best of 200.

Example:
    python benchmarks/library_size.py [model.kbits]
"""

from __future__ import annotations

import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

KERNELS = pathlib.Path(__file__).parents[1] / "tflite_export" / "kernels"
TRIPLES = ("x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf")
BUILD_TYPES = ("Release", "MinSizeRel")

APP = """
#include <kb_model.h>
__attribute__((visibility("default")))
int app(const void* file, size_t bytes, const void* const* x, void* const* y) {
  kb_model* model;
  int failed = kb_model_open(file, bytes, 0, &model, 0, 0) || kb_model_run(model, x, y, 0, 0);
  kb_model_close(model);
  return failed;
}
"""
"""An app's library that runs .kbits files, and so needs neither the delegate nor single layers."""

CLOCK = """
#define _POSIX_C_SOURCE 199309L
#include <kb_model.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static char file[1 << 26];
int main(int count, char** paths) {
  kb_model* model;
  kb_tensor_info x, y;
  struct timespec a, b;
  double best = 1e9;
  FILE* stream = count == 2 ? fopen(paths[1], "rb") : NULL;
  size_t bytes = stream ? fread(file, 1, sizeof file, stream) : 0;
  if (kb_model_open(file, bytes, 0, &model, 0, 0) || kb_model_input(model, 0, &x, 0, 0) ||
      kb_model_output(model, 0, &y, 0, 0))
    return 1;
  const void* inputs[] = {calloc(x.bytes, 1)};
  void* outputs[] = {calloc(y.bytes, 1)};
  for (int i = 0; i < 200; ++i) {
    clock_gettime(CLOCK_MONOTONIC, &a);
    if (kb_model_run(model, inputs, outputs, 0, 0)) return 1;
    clock_gettime(CLOCK_MONOTONIC, &b);
    double took = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    if (took < best) best = took;
  }
  printf("%.3f", 1e3 * best);
}
"""
"""Times a model of one input and one output, in milliseconds."""


def build(folder: pathlib.Path, triple: str, build_type: str, shared: bool) -> pathlib.Path:
    """Path of the library, built by CMake for another processor."""
    toolchain = folder / "toolchain.cmake"
    toolchain.write_text(
        f"set(CMAKE_SYSTEM_NAME Linux)\nset(CMAKE_C_COMPILER {triple}-gcc)\n"
        'set(CMAKE_C_FLAGS_INIT "-ffunction-sections -fdata-sections")\n'
    )
    out = folder / ("shared" if shared else "static")
    options = [f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DCMAKE_BUILD_TYPE={build_type}"]
    run("cmake", "-S", KERNELS, "-B", out, f"-DBUILD_SHARED_LIBS={shared}", *options)
    run("cmake", "--build", out, "-j2")
    return out / f"libkerasbits.{'so' if shared else 'a'}"


def run(*command) -> str:
    """Standard output of a command."""
    return subprocess.run(
        [str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def app_bytes(folder: pathlib.Path, triple: str, source: str, *libraries) -> int:
    """Code and data of an app's library, without what the linker can drop."""
    (folder / "app.c").write_text(source)
    flags = ["-O2", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-I", KERNELS, "-shared"]
    drop = ["-Wl,--gc-sections", "-Wl,--exclude-libs,ALL"]
    app = folder / "libapp.so"
    run(f"{triple}-gcc", *flags, folder / "app.c", *libraries, "-lm", *drop, "-o", app)
    return code_and_data(triple, app)


def code_and_data(triple: str, file: pathlib.Path) -> int:
    """Bytes that are loaded of a file."""
    text, data = run(f"{triple}-size", file).splitlines()[1].split()[:2]
    return int(text) + int(data)


def instruction_set_bytes(folder: pathlib.Path, triple: str) -> str:
    """Code of the kernels of each instruction set."""
    objects = sorted(folder.rglob("gemm_*.o"))
    sizes = {re.search("gemm_(.*?)[.]", p.name)[1]: code_and_data(triple, p) for p in objects}
    return ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size > 100)


def milliseconds(folder: pathlib.Path, triple: str, library: pathlib.Path, model: str) -> str:
    """The time of a run on this machine, with a library built for it."""
    (folder / "clock.c").write_text(CLOCK)
    program = folder / "clock"
    run(f"{triple}-gcc", "-O2", "-I", KERNELS, folder / "clock.c", library, "-lm", "-o", program)
    return run(program, model)


def main(models: list[str]) -> None:
    """Print a line for each processor and build type."""
    for triple in TRIPLES:
        if not shutil.which(f"{triple}-gcc"):
            print(f"{triple}: no compiler")
            continue
        for build_type in BUILD_TYPES:
            with tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                shared = build(folder, triple, build_type, shared=True)
                run(f"{triple}-strip", "--strip-unneeded", shared)
                static = build(folder, triple, build_type, shared=False)
                with_it = app_bytes(folder, triple, APP, static)
                without = app_bytes(folder, triple, "int app(void) { return 0; }")
                sets = instruction_set_bytes(folder / "static", triple)
                print(
                    f"{triple:20} {build_type:11} shared {shared.stat().st_size:>8,} bytes"
                    f"   in an app {with_it - without:>8,} bytes   {sets}",
                    flush=True,
                )
                for model in models if triple.startswith(platform.machine()) else ():
                    print(f"    {model}: {milliseconds(folder, triple, static, model)} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
