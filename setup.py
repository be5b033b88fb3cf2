"""Build of kerasbits: two Python packages and one plain C library, `tflite_export/libkerasbits.so`.

The library is no CPython extension: it is loaded by ctypes, or by LiteRT as a delegate. So its
file name has no interpreter tag and one wheel serves every Python 3 of a platform. Without a C
compiler the packages install all the same; only running packed layers needs the library.
"""

import os
import pathlib
import platform

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    from wheel.bdist_wheel import bdist_wheel

KERNELS = pathlib.Path("tflite_export", "kernels")
FLAGS = ["-O3", "-std=c11", "-fPIC", "-fvisibility=hidden", "-DNDEBUG"]
FLAGS += ["-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-g0"]
MACHINE, APPLE = platform.machine().lower(), platform.system() == "Darwin"
# A word of a file's name tells its instruction set, and that the flags it is compiled with.
AVX512 = ["f", "bw", "vl", "dq", "vnni", "vpopcntdq", "bitalg"]
FLAGS_OF_SET = {
    "avx2": ["-mavx2"],
    "avx512": ["-mavx2", *(f"-mavx512{part}" for part in AVX512)],
    "neondot": ["-march=armv8.2-a+dotprod"],
    "neoni8mm": ["-march=armv8.2-a+dotprod+i8mm"],
}
# Names of the processor family as Apple's compiler has it, and as machines say it.
X86, ARM = ("x86_64", "amd64"), ("arm64", "aarch64")
LINKED = ["-pthread"] + ([] if APPLE else ["-Wl,--no-undefined"])

# The sources go with the package: apps link them.
SHIPPED = ["*.c", "*.h", "*.inc", "*.modulemap", "Makefile", "CMakeLists.txt"]

EXTRAS = {
    # Not tensorflow-cpu: it would overwrite the files of a tensorflow that knows the GPU, and
    # tf_keras asks for tensorflow anyway.
    "export": ["tensorflow>=2.20", "ai-edge-litert>=2.0", "flatbuffers", "absl-py"],
    "tfmot": ["tensorflow>=2.20", "tensorflow-model-optimization>=0.8", "tf_keras>=2.20"],
    "examples": ["absl-py", "google-crc32c", "pillow", "pyyaml", "scikit-learn", "tensorboard"],
    "bench": ["matplotlib"],
    "test": ["pytest", "pytest-xdist", "hypothesis", "ruff", "jax"],
}

CLASSIFIERS = [
    "Development Status :: 4 - Beta",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Operating System :: MacOS",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: C",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3 :: Only",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
]


def flags_of_file(source: str) -> list[str]:
    """Flags of its own that a file of one instruction set needs.

    One build on an Apple machine may compile each file for both families.
    """
    words = pathlib.Path(source).stem.split("_")
    flags = []
    for instructions, its_flags in FLAGS_OF_SET.items():
        family = X86 if instructions.startswith("avx") else ARM
        if instructions in words and APPLE:
            flags += [part for flag in its_flags for part in (f"-Xarch_{family[0]}", flag)]
        elif instructions in words and MACHINE in family:
            flags += its_flags
    return flags


class BuildLibrary(build_ext):
    """Builds a plain shared library, with flags of their own for files of one instruction set."""

    def get_ext_filename(self, fullname):
        """File name without the tag of the interpreter."""
        return fullname.replace(".", os.sep) + ".so"

    def get_export_symbols(self, ext):
        """No module init function."""
        return []

    def build_extension(self, ext):
        """Compile each source and link them."""
        objects = []
        for source in ext.sources:
            objects += self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                extra_postargs=FLAGS + flags_of_file(source),
                depends=ext.depends,
            )
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            libraries=["m"],
            extra_postargs=LINKED,
            target_lang="c",
        )


class AnyPythonWheel(bdist_wheel):
    """Tags the wheel for every Python 3 of the platform."""

    def get_tag(self):
        """Keep only the platform."""
        return "py3", "none", super().get_tag()[2]


def library() -> Extension:
    """The C library; `optional` turns a failed build into a warning."""
    sources = sorted(str(p) for p in KERNELS.glob("*.c"))
    headers = sorted(str(p) for p in [*KERNELS.glob("*.h"), *KERNELS.glob("*.inc")])
    name = "tflite_export.libkerasbits"
    return Extension(name, sources, depends=headers, include_dirs=[str(KERNELS)], optional=True)


setup(
    name="kerasbits",
    version="0.1.0",
    description="Learn how many bits each part of a Keras model needs, and export it",
    long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The kerasbits authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="keras quantization mixed-precision tflite litert embedded",
    classifiers=CLASSIFIERS,
    python_requires=">=3.11",
    packages=find_packages(include=["kerasbits*", "tflite_export*"]),
    package_data={"tflite_export": ["kbits.fbs", *(f"kernels/{files}" for files in SHIPPED)]},
    install_requires=["keras>=3.15", "numpy", "rich"],
    extras_require=EXTRAS,
    ext_modules=[library()],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AnyPythonWheel},
    zip_safe=False,
)
