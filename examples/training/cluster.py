"""The cluster that TF_CONFIG describes: who is in it, and whether all have come.

    TF_CONFIG='{"cluster": {"worker": ["host0:12345", "host1:12345"]},
                "task": {"type": "worker", "index": 0}}'

Each process gets the same "cluster" and a "task" of its own. One task may be a "chief"; without
it worker 0 is the chief.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from training.values import SettingError

VARIABLE = "TF_CONFIG"
JOBS = ("chief", "worker")

ATTEMPT_SECONDS = 2.0
"""Longest time for one connection; a quarter of it passes between attempts."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Args:
        names: of the tasks, the chief first: "worker 0".
        addresses: theirs, "host:port".
        index: which of them this process is.
    """

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.index == 0


def read_cluster(environment: Mapping[str, str]) -> Cluster:
    """The cluster that the variable TF_CONFIG describes.

    Raises:
        SettingError: no such variable, or not of the form above.
    """
    text = environment.get(VARIABLE)
    if not text:
        raise _error("none")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _error(f"no JSON ({error})") from None
    jobs = _jobs(found)
    tasks = [(f"{job} {i}", a) for job in JOBS for i, a in enumerate(jobs.get(job, ()))]
    names, addresses = zip(*tasks, strict=True)
    task = found.get("task")
    task = task if isinstance(task, dict) else {}
    name = f"{task.get('type')} {task.get('index')}"
    if name not in names or isinstance(task.get("index"), bool):
        raise _error(f"the task {found.get('task')!r}, which is none of {', '.join(names)}")
    return Cluster(names, addresses, names.index(name))


def _jobs(found: Any) -> dict[str, list[str]]:
    jobs = found.get("cluster") if isinstance(found, dict) else None
    if not isinstance(jobs, dict) or not any(jobs.values()):
        raise _error(f"no cluster in {found!r}")
    if unknown := [job for job in jobs if job not in JOBS]:
        raise _error(f"the job {unknown[0]!r}; all that train are workers, one may be the chief")
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(_is_address(a) for a in addresses):
            raise _error(f"{addresses!r} as the addresses of {job!r}")
    if len(jobs.get("chief", ())) > 1:
        raise _error(f"{len(jobs['chief'])} chiefs")
    addresses = [address for job in jobs.values() for address in job]
    if twice := [a for a in addresses if addresses.count(a) > 1]:
        raise _error(f"the address {twice[0]!r} twice")
    return jobs


def _is_address(text: Any) -> bool:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def _error(got: str) -> SettingError:
    form = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    return SettingError(
        "distribute", f"'multi_worker' expected {VARIABLE} of the form {form}, got {got}"
    )


def wait_for_all(cluster: Cluster, seconds: float) -> None:
    """Return once every task of the cluster is there.

    TensorFlow would wait without end, deaf to signals, where one is missing. Each task listens at
    its address and tries the others'; one that has seen all goes on, and TensorFlow listens in its
    place.

    Raises:
        ConnectionError: not all came in `seconds`, naming who is missing; or the port of this task
            is taken.
    """
    end = time.monotonic() + seconds
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    try:
        # Not answered: that a connection stands is all that the others want to know.
        listening = socket.create_server(("", port), backlog=len(cluster.addresses) * 4)
    except OSError as error:
        raise ConnectionError(
            f"{VARIABLE}: expected a free port {port} for {cluster.names[cluster.index]} ({error})"
        ) from None
    with listening:
        missing = [i for i in range(len(cluster.addresses)) if i != cluster.index]
        while missing := [i for i in missing if not _answers(cluster.addresses[i])]:
            if time.monotonic() > end:
                who = ", ".join(f"{cluster.names[i]} at {cluster.addresses[i]}" for i in missing)
                raise ConnectionError(
                    f"{VARIABLE}: expected all workers within {seconds:g} s, got no answer from "
                    f"{who}"
                )
            time.sleep(ATTEMPT_SECONDS / 4)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ATTEMPT_SECONDS):
            return True
    except OSError:
        return False
