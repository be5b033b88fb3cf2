"""Run .tflite files in whatever runtime is installed here. Needs NumPy and the runtime alone.

    python run_files.py MODULE JOBS.json

MODULE is the module that holds `Interpreter` and `load_delegate`. A job is
{"file", "inputs": [.npy], "outputs": [.npy], "delegate": path or null, "plain": bool}; `plain`
leaves out the runtime's own delegate (XNNPACK). Each job runs in a process of its own, so a
runtime that crashes fails one job only. Prints a list of messages, "" where all went well.
"""

import importlib
import json
import os
import sys

import numpy as np


def run(litert, job):
    """Run one job and write its outputs."""
    options = {}
    if job["delegate"]:
        options["experimental_delegates"] = [litert.load_delegate(job["delegate"])]
    if job["plain"]:
        kinds = litert.OpResolverType
        options["experimental_op_resolver_type"] = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = litert.Interpreter(model_path=job["file"], **options)
    inputs = [np.load(path) for path in job["inputs"]]
    details = interpreter.get_input_details()
    for detail, x in zip(details, inputs):  # noqa: B905 (Python of the runtime may be old)
        if tuple(detail["shape"]) != x.shape:
            interpreter.resize_tensor_input(detail["index"], x.shape)
    interpreter.allocate_tensors()
    for detail, x in zip(details, inputs):  # noqa: B905
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    for detail, path in zip(interpreter.get_output_details(), job["outputs"]):  # noqa: B905
        np.save(path, interpreter.get_tensor(detail["index"]))


def alone(litert, job):
    """Run one job in a child; its error, or "" if there was none."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run(litert, job)
            message = b""
        except Exception as error:
            message = (str(error) or repr(error)).encode()[-500:]
        os.write(write, message)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        message = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    return message or (f"crashed with status {status}" if status else "")


if __name__ == "__main__":
    with open(sys.argv[2]) as jobs:
        jobs = json.load(jobs)
    module = importlib.import_module(sys.argv[1])
    print(json.dumps([alone(module, job) for job in jobs]))
