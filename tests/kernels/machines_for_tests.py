"""Machines other than this one: their compilers, and what runs their programs here."""

import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from tflite_export import native

KERNELS = pathlib.Path(native.__file__).parent / "kernels"


@functools.cache
def _temporary(name):
    return tempfile.TemporaryDirectory(prefix=f"kerasbits-{name}-")


def build_folder(name):
    """A folder that lives as long as the session: what all tests need is compiled once."""
    return pathlib.Path(_temporary(name).name)


@dataclasses.dataclass(frozen=True)
class Machine:
    """A Linux on another processor, through a cross compiler and qemu's user mode.

    `processors` are the instruction sets to expect by what qemu is told.
    """

    triple: str
    qemu: str
    processors: dict[str, str]

    @property
    def compiler(self):
        return f"{self.triple}-gcc"

    @property
    def runner(self):
        """What to put in front of a program of that machine."""
        return [self.qemu, "-L", f"/usr/{self.triple}"]

    def need(self):
        """Skip where the tools are missing."""
        missing = [tool for tool in (self.compiler, self.qemu) if not shutil.which(tool)]
        if missing:
            pytest.skip(f"needs {' and '.join(missing)}; `make tools` installs them")

    def make(self, target, build):
        """Build with the Makefile of the library; what it prints."""
        command = ["make", "-s", "-j2", "-C", str(KERNELS), target, f"BUILD={build}"]
        command += [f"CC={self.compiler}", f"RUN={' '.join(self.runner)}"]
        return output_of(command, ASAN_OPTIONS="detect_leaks=0")

    def program(self, name):
        """Path of a program of the Makefile, built for that machine."""
        folder = build_folder(self.triple)
        self.make(folder / name, folder)
        return folder / name

    def run(self, *command, processor="max", **variables):
        """What a program of that machine prints."""
        return output_of([*self.runner, "-cpu", processor, *command], **variables)


def output_of(command, **variables):
    """Standard output of a command that must succeed."""
    env = {k: v for k, v in os.environ.items() if k != "KERASBITS_ISA"} | variables
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# The size of a size_t, of a long and of a pointer differs on the second one.
MACHINES = {
    "aarch64": Machine(
        "aarch64-linux-gnu",
        "qemu-aarch64",
        {"cortex-a53": "neon", "neoverse-n1": "neondot", "max": "neoni8mm"},
    ),
    "armhf": Machine("arm-linux-gnueabihf", "qemu-arm", {"max": "scalar"}),
}


@dataclasses.dataclass(frozen=True)
class Board:
    """A board without an operating system, emulated; programs reach files here by semihosting."""

    compiler: str = "arm-none-eabi-gcc"
    emulator: str = "qemu-system-arm"
    cpu: str = "-mcpu=cortex-m7 -mthumb -mfloat-abi=hard -mfpu=fpv5-d16"

    def need(self):
        """Skip where the tools are missing."""
        missing = [t for t in (self.compiler, self.emulator, "cmake") if not shutil.which(t)]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}")

    def library(self):
        """Path of the library, built for the board with CMake."""
        folder = build_folder("board")
        toolchain = folder / "toolchain.cmake"
        toolchain.write_text(
            "set(CMAKE_SYSTEM_NAME Generic)\nset(CMAKE_SYSTEM_PROCESSOR arm)\n"
            f'set(CMAKE_C_COMPILER {self.compiler})\nset(CMAKE_C_FLAGS_INIT "{self.cpu}")\n'
            "set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)\n"
        )
        options = ["-DKERASBITS_WERROR=ON", f"-DCMAKE_TOOLCHAIN_FILE={toolchain}"]
        output_of(["cmake", "-S", KERNELS, "-B", folder / "library", *options])
        output_of(["cmake", "--build", folder / "library", "-j2"])
        return folder / "library" / "libkerasbits.a"

    def program(self, source):
        """Path of a program for the board, made of a C source and the library."""
        program = build_folder("board") / source.stem
        start = pathlib.Path(__file__).with_name("board.c")
        flags = [*self.cpu.split(), "-std=c11", "-O2", "-Wall", "-Wextra", "-I", KERNELS]
        place = ["--specs=nano.specs", "--specs=rdimon.specs", "-u", "_printf_float"]
        place += ["-Wl,--section-start=.vectors=0"]
        sources = [source, start, self.library(), "-lm"]
        output_of([self.compiler, *flags, *sources, *place, "-o", program])
        return program

    def run(self, program, *arguments):
        """What a program prints on the board."""
        words = ",".join(f"arg={word}" for word in (program.name, *arguments))
        command = [self.emulator, "-M", "mps2-an500", "-nographic", "-kernel", program]
        return output_of([*command, "-semihosting-config", f"enable=on,target=native,{words}"])
