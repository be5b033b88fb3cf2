"""What docs/linking.md shows compiles as it stands there, and what runs on this machine runs."""

import pathlib
import re
import shlex
import shutil
import sys

import keras
import numpy as np
import pytest
from kernels.machines_for_tests import KERNELS, output_of

import kerasbits
import tflite_export

GUIDE = (pathlib.Path(__file__).parents[2] / "docs" / "linking.md").read_text(encoding="utf-8")

MAIN = """
import com.example.Model;
import java.nio.*;
import java.nio.channels.FileChannel;
import java.nio.file.*;

public class Main {
  static FloatBuffer floats(int count) {
    return ByteBuffer.allocateDirect(4 * count).order(ByteOrder.nativeOrder()).asFloatBuffer();
  }

  static void expectRefused(Runnable action) {
    try {
      action.run();
    } catch (IllegalArgumentException | IllegalStateException error) {
      System.out.println(error.getMessage());
      return;
    }
    throw new AssertionError("accepted");
  }

  public static void main(String[] paths) throws Exception {
    FileChannel channel = FileChannel.open(Path.of(paths[0]));
    Model model = new Model(channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size()));
    FloatBuffer x = floats(6), y = floats(4);
    for (int i = 0; i < 6; i++) x.put(i, i / 8f);
    model.run(x, y);
    for (int i = 0; i < 4; i++) System.out.println(y.get(i));
    expectRefused(() -> model.run(x, floats(3)));
    expectRefused(() -> model.run(FloatBuffer.allocate(6), y));
    expectRefused(() -> new Model(ByteBuffer.allocateDirect(20)));
    expectRefused(() -> new Model(ByteBuffer.allocate(20)));
    model.close();
    expectRefused(() -> model.run(x, y));
  }
}
"""

DELEGATE = """
package com.example;

public class KerasbitsDelegate {
  private native long create();

  private native void destroy(long handle);

  public static void main(String[] none) {
    System.loadLibrary("app");
    KerasbitsDelegate delegate = new KerasbitsDelegate();
    long first = delegate.create(), second = delegate.create();
    System.out.println(first != 0 && second != 0 && first != second);
    delegate.destroy(first);
    delegate.destroy(second);
  }
}
"""


def snippets(language, containing=""):
    found = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return [text for text in found if containing in text]


def model_file(path):
    """A small model as .kbits, and what it gives for 0, 1/8, 2/8, ..."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model = kerasbits.quantize_model(model, kerasbits.BitPruning())
    x = np.arange(6, dtype=np.float32)[np.newaxis] / 8
    kerasbits.calibrate(model, x)
    kerasbits.freeze(model)
    tflite_export.export(model, path, verify=False)
    return model.predict(x, verbose=0)[0]


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_c_compiles(tmp_path):
    (source,) = snippets("c", "int classify")
    (tmp_path / "app.c").write_text(source)
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", KERNELS]
    output_of(["gcc", *flags, tmp_path / "app.c"])


def java_home():
    """Of the compiler on the path."""
    compiler = pathlib.Path(shutil.which("javac")).resolve()
    return compiler.parents[1]


def build_app(folder, source):
    """The library `app` of one C file, in `folder/out`, as the guide builds it with CMake."""
    (cmake,) = snippets("cmake")
    (folder / "jni.c").write_text(source)
    headers = [java_home() / "include", java_home() / "include/linux"]
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.14)\nproject(app C)\nadd_library(app SHARED jni.c)\n"
        "target_compile_options(app PRIVATE -Wall -Wextra -Werror)\n"
        "target_link_options(app PRIVATE -Wl,--no-undefined)\n"
        f"target_include_directories(app PRIVATE {headers[0]} {headers[1]})\n"
        + cmake.replace("path/to/tflite_export/kernels", str(KERNELS))
    )
    output_of(["cmake", "-S", folder, "-B", folder / "out"])
    output_of(["cmake", "--build", folder / "out", "-j2"])


def run_java(folder, *arguments):
    """What a program of compiled classes beside the library `app` prints, line by line."""
    options = [f"-Djava.library.path={folder / 'out'}", "-Xcheck:jni", "-cp", folder]
    return output_of(["java", *options, *arguments]).splitlines()


needs_java = pytest.mark.skipif(
    not all(map(shutil.which, ("javac", "java", "cmake"))), reason="needs a JDK and cmake"
)


@needs_java
def test_java_runs_a_model(tmp_path):
    expected = model_file(tmp_path / "model.kbits")
    (java,), (jni,) = snippets("java"), snippets("c", "Model_open")
    build_app(tmp_path, jni)
    (tmp_path / "Main.java").write_text(MAIN)
    (tmp_path / "Model.java").write_text(java)
    output_of(["javac", "-d", tmp_path, tmp_path / "Model.java", tmp_path / "Main.java"])
    *scores, short, heap, garbage, array, closed = run_java(
        tmp_path, "Main", tmp_path / "model.kbits"
    )
    np.testing.assert_allclose(np.array(scores, np.float32), expected, rtol=1e-5, atol=1e-5)
    assert short == heap == "expected direct buffers as long as the input and the output"
    assert "expected" in garbage
    assert array == "expected a direct buffer"
    assert closed == "the model is closed"


@needs_java
def test_java_makes_a_delegate(tmp_path):
    """The C side of the Kotlin class, through a Java class that declares the same functions."""
    (kotlin,), (jni,) = snippets("kotlin", "external"), snippets("c", "KerasbitsDelegate")
    declared = re.findall(r"external fun (\w+)\(", kotlin)
    assert declared == re.findall(r"native \w+ (\w+)\(", DELEGATE) == ["create", "destroy"]
    build_app(tmp_path, jni)
    (tmp_path / "KerasbitsDelegate.java").write_text(DELEGATE)
    output_of(["javac", "-d", tmp_path, tmp_path / "KerasbitsDelegate.java"])
    assert run_java(tmp_path, "com.example.KerasbitsDelegate") == ["true"]


def test_named_files_exist():
    root = KERNELS.parents[1]
    for name in re.findall(r"`((?:docs|tflite_export|examples|tests)/[\w/.]+)`", GUIDE):
        assert (root / name).exists(), name
    for header in re.findall(r"`(\w+\.[ch])`", GUIDE):
        assert (KERNELS / header).exists(), header


def test_options_are_those_of_cmake():
    options = set(re.findall(r"^option\((\w+)", (KERNELS / "CMakeLists.txt").read_text(), re.M))
    assert options == set(re.findall(r"^\| `([A-Z_]+)` \|", GUIDE, re.M))


def test_the_installed_sources_are_found():
    (command,) = re.findall(r"^    python (-c .*)$", GUIDE, re.M)
    printed = output_of([sys.executable, *shlex.split(command)], PYTHONPATH=str(KERNELS.parents[1]))
    assert pathlib.Path(printed.strip()).parent == KERNELS.parent
