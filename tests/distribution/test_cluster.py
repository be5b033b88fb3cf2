"""TF_CONFIG, and processes that wait for each other."""

import json
import socket
import threading

import pytest
from example_modules import example

cluster = example("training.cluster")
values = example("training.values")


def environment(jobs, job="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": job, "index": index}})}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def test_workers_alone():
    found = cluster.read_cluster(environment({"worker": ["a:1", "b:2"]}, index=1))
    assert found.names == ("worker 0", "worker 1")
    assert (found.addresses, found.index, found.chief) == (("a:1", "b:2"), 1, False)
    assert cluster.read_cluster(environment({"worker": ["a:1", "b:2"]})).chief


def test_a_chief_comes_first():
    jobs = {"worker": ["a:1"], "chief": ["c:3"]}
    chief = cluster.read_cluster(environment(jobs, "chief"))
    assert (chief.addresses, chief.index, chief.chief) == (("c:3", "a:1"), 0, True)
    worker = cluster.read_cluster(environment(jobs, "worker"))
    assert (worker.index, worker.chief) == (1, False)


TWO = {"worker": ["a:1", "b:2"]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "got none"),
        ("", "got none"),
        ("{worker", "got no JSON"),
        ("[]", "got no cluster"),
        ('{"cluster": {}}', "got no cluster"),
        ('{"cluster": {"worker": []}}', "got no cluster"),
        ({"cluster": TWO}, "got the task None"),
        ({"cluster": TWO, "task": {"type": "worker", "index": 2}}, "none of worker 0, worker 1"),
        ({"cluster": TWO, "task": {"type": "worker", "index": True}}, "got the task"),
        ({"cluster": TWO, "task": {"type": "chief", "index": 0}}, "got the task"),
        ({"cluster": {**TWO, "ps": ["c:3"]}}, "the job 'ps'"),
        ({"cluster": {"worker": "a:1"}}, "as the addresses of 'worker'"),
        ({"cluster": {"worker": ["a"]}}, "as the addresses of 'worker'"),
        ({"cluster": {"worker": ["a:0"]}}, "as the addresses of 'worker'"),
        ({"cluster": {"worker": ["a:70000"]}}, "as the addresses of 'worker'"),
        ({"cluster": {"worker": ["a:1", "a:1"]}}, "'a:1' twice"),
        ({"cluster": {"chief": ["a:1", "b:1"]}}, "2 chiefs"),
    ],
)
def test_malformed(config, message):
    text = config if config is None or isinstance(config, str) else json.dumps(config)
    with pytest.raises(values.SettingError, match="TF_CONFIG of the form") as caught:
        cluster.read_cluster({} if text is None else {"TF_CONFIG": text})
    assert message in str(caught.value)
    assert caught.value.name == "distribute"


def test_all_come():
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(3))
    names = ("worker 0", "worker 1", "worker 2")
    done = []

    def wait(index):
        cluster.wait_for_all(cluster.Cluster(names, addresses, index), 20)
        done.append(index)
        # TensorFlow listens at the address from now on.
        port = int(addresses[index].rpartition(":")[2])
        with socket.create_server(("", port)):
            over.wait(20)

    over = threading.Event()
    threads = [threading.Thread(target=wait, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        if len(done) == 3:
            break
        over.wait(0.1)
    over.set()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2]


def test_one_is_missing():
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    found = cluster.Cluster(("chief 0", "worker 0"), addresses, 0)
    with pytest.raises(ConnectionError, match=f"no answer from worker 0 at {addresses[1]}"):
        cluster.wait_for_all(found, 0.5)


def test_the_port_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        found = cluster.Cluster(("worker 0",), (f"127.0.0.1:{port}",), 0)
        with pytest.raises(ConnectionError, match=f"expected a free port {port} for worker 0"):
            cluster.wait_for_all(found, 5)
