"""Training on several devices or machines: what `--distribute` starts.

A step cuts its batch into equal parts, one for each replica. All replicas hold the same weights and
the same state of the quantizers, and exchange gradients and what quantizers find in the batch; so
the result is that of one worker with the whole batch, up to the order of sums. The chief alone
writes files. See docs/distribution.md.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from datasets import Batches, EvaluationBatches

from training.cluster import Cluster, read_cluster, wait_for_all
from training.settings import Settings
from training.values import SettingError

START_SECONDS = 600.0
"""How long processes of a cluster wait for each other at the start."""

STEP_SECONDS = 600.0
"""How long a worker waits for the others within a step, as while the chief writes a checkpoint.
One whose process or machine is gone is noticed within half a minute."""


def start(settings: Settings, patience: float = START_SECONDS):
    """The workers that the settings ask for. Call it once, before TensorFlow or JAX compute.

    Args:
        settings: `distribute` is "mirrored" (all devices of this machine) or "multi_worker" (the
            processes that TF_CONFIG lists).
        patience: seconds to wait for the other processes.

    Raises:
        SettingError: TF_CONFIG not as it should be, a batch that cannot be cut into equal parts, a
            setting or a backend that does not go with it.
        ConnectionError: processes that did not come.
    """
    backend = keras.backend.backend()
    if backend == "jax" and settings.distribute == "mirrored":
        return DataParallel(settings)
    if backend != "tensorflow":
        raise SettingError(
            "distribute", f"{settings.distribute!r} needs TensorFlow, got the backend {backend!r}"
        )
    if settings.jit_compile:
        raise SettingError("jit_compile", "expected false where replicas work together, got true")
    if settings.distribute == "mirrored":
        return _mirrored(settings)
    cluster = read_cluster(os.environ)
    _check_parts(settings, len(cluster.addresses), "workers")
    wait_for_all(cluster, patience)
    return _multi_worker(settings, cluster)


def _mirrored(settings: Settings) -> Replicas:
    import tensorflow as tf

    kinds = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
    devices = [device.name for device in next(filter(None, kinds))]
    _check_parts(settings, len(devices), "devices")
    return Replicas(tf.distribute.MirroredStrategy(devices))


def _multi_worker(settings: Settings, cluster: Cluster) -> Replicas:
    import tensorflow as tf

    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=STEP_SECONDS)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    _check_parts(settings, strategy.num_replicas_in_sync, "devices of all workers")
    return Replicas(strategy, cluster.index, len(cluster.addresses))


def _check_parts(settings: Settings, parts: int, what: str) -> None:
    if settings.batch_size % parts:
        raise SettingError(
            "batch_size", f"expected a multiple of {parts}, the {what}, got {settings.batch_size}"
        )


class Replicas:
    """Replicas of a `tf.distribute` strategy; models of Keras 3 and of tf_keras.

    Args:
        strategy: mirrored, on this machine or over several.
        worker: which process this one is; 0 is the chief.
        workers: number of processes.
    """

    def __init__(self, strategy: Any, worker: int = 0, workers: int = 1):
        self.strategy, self.worker, self.workers = strategy, worker, workers
        self.chief = worker == 0
        self.replicas = strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager:
        """The context in which models and optimizers that are trained are made."""
        return self.strategy.scope()

    def trained(self, model: Any) -> Any:
        """The model to compile and train, with the layers of `model`. Call it outside `scope`."""
        if self.workers == 1 or not isinstance(model, keras.Model):
            return model
        found = Replicated(model.inputs, model.outputs, name=model.name)
        found.strategy = self.strategy
        return found

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """The time in which the workers need each other.

        Raises:
            ConnectionError: another worker was lost.
        """
        import tensorflow as tf

        lost = (
            tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError,
            tf.errors.CancelledError, tf.errors.FailedPreconditionError,
        )  # fmt: skip
        try:
            yield
        except lost as error:
            if self.workers == 1:
                raise
            reason = str(error).partition("Collective ops is aborted by:")[2] or str(error)
            raise ConnectionError(
                "lost another worker; start all of them again, and they go on from the last "
                f"checkpoint ({' '.join(reason.split())[:200]})"
            ) from None

    def dataset(self, batches: Batches, first: int, last: int) -> Any:
        """The batches of steps `first` to `last` - 1; each worker reads its part of them alone."""
        return self._distributed(
            lambda: batches.tf_dataset(first, last, self.worker, self.workers),
        )

    def evaluation(self, batches: EvaluationBatches) -> Any:
        """The batches for `model.evaluate`, in the same way."""
        return self._distributed(lambda: batches.tf_dataset(self.worker, self.workers))

    def _distributed(self, make: Any) -> Any:
        """A dataset for the strategy, which takes one element after the other for each device."""
        import tensorflow as tf

        here = self.replicas // self.workers

        def cut(*batch):
            return tuple(tf.reshape(t, (here, -1, *t.shape[1:])) for t in batch)

        def made(_):
            return make() if here == 1 else make().map(cut).unbatch().prefetch(here)

        return self.strategy.distribute_datasets_from_function(made)

    def from_chief(self, data: bytes) -> bytes:
        """What the chief holds, on every worker. All have to call it."""
        if self.workers == 1:
            return data
        size = int(self._from_chief(np.array([len(data)], np.int32))[0])
        mine = np.zeros(-(-size // 4) * 4, np.uint8)
        if self.chief:
            mine[:size] = np.frombuffer(data, np.uint8)
        return self._from_chief(mine.view(np.int32)).tobytes()[:size]

    def _from_chief(self, values: np.ndarray) -> np.ndarray:
        """Sum of the chief's whole numbers and the others' zeros."""
        import tensorflow as tf

        values = values if self.chief else np.zeros_like(values)
        with tf.device(f"/task:{self.worker}/device:CPU:0"):
            return self.strategy.reduce("SUM", tf.constant(values), axis=None).numpy()


class Replicated(keras.Model):
    """A model of Keras 3 that can be trained by a strategy of several processes.

    Keras 3.15 fails there in two places. It builds models of such a strategy from a batch that it
    cannot reduce: so this one is made outside of the strategy's scope, where Keras does not look
    for the strategy before `fit`, from layers that were made inside. And it averages what a step
    returns over its first axis, so a step must not return scalars.
    """

    strategy: Any = None

    def train_step(self, data):
        """Metrics after a step, each of shape (1,)."""
        return _with_axis(super().train_step(data))

    def test_step(self, data):
        """Metrics after a step of evaluation, each of shape (1,)."""
        return _with_axis(super().test_step(data))

    def compile(self, *args, **kwargs):
        """As in Keras."""
        with self._scope():
            super().compile(*args, **kwargs)

    def fit(self, *args, **kwargs):
        """As in Keras."""
        with self._scope():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        """As in Keras."""
        with self._scope():
            return super().evaluate(*args, **kwargs)

    def _scope(self):
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()


def _with_axis(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: keras.ops.reshape(value, (1,)) for name, value in metrics.items()}


class DataParallel:
    """All devices of this machine by `keras.distribution`, on JAX.

    Arrays span the devices: variables are copied to all, batches are cut.
    """

    chief, workers = True, 1

    def __init__(self, settings: Settings):
        devices = keras.distribution.list_devices()
        _check_parts(settings, len(devices), "devices")
        self.replicas = len(devices)
        self._distribution = keras.distribution.DataParallel(devices=devices)

    def scope(self) -> contextlib.AbstractContextManager:
        """The context in which models and optimizers that are trained are made."""
        return self._distribution.scope()

    def trained(self, model: Any) -> Any:
        """The model itself."""
        return model

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """The time of the training: Keras asks for the distribution in `fit` too."""
        with self._distribution.scope():
            yield

    def dataset(self, batches: Batches, first: int, last: int) -> Any:
        """Whole batches; Keras cuts them."""
        return batches.as_numpy(first, last)

    def evaluation(self, batches: EvaluationBatches) -> Any:
        """Whole batches, padded to equal parts."""
        return batches.as_numpy()

    def from_chief(self, data: bytes) -> bytes:
        """The data: there is one process."""
        return data
