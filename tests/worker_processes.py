"""Processes that train together on this machine."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 600
"""For a machine that has much else to do."""

ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONPATH": str(ROOT),
}


class Running:
    """A Python program that runs beside others; what it prints goes to files, so none waits."""

    def __init__(self, command, **environment):
        self.files = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**os.environ, **ENVIRONMENT, **environment},
            stdout=self.files[0], stderr=self.files[1],
        )  # fmt: skip

    def end(self, seconds=SECONDS):
        """Wait for the end, however it comes: status, output, errors."""
        try:
            status = self.process.wait(seconds)
        finally:
            self.process.kill()  # TensorFlow may not heed a gentler signal
        texts = []
        for file in self.files:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return status, *texts

    def finish(self, seconds=SECONDS):
        """Wait for a good end; what was printed."""
        status, out, errors = self.end(seconds)
        assert status == 0, errors[-3000:]
        return out


def start_two(command_of):
    """Start the program `command_of(i)` as worker i of two."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    tasks = [{"type": "worker", "index": i} for i in range(2)]
    return [
        Running(
            command_of(i), TF_CONFIG=json.dumps({"cluster": {"worker": addresses}, "task": task})
        )
        for i, task in enumerate(tasks)
    ]
