"""What a training is spread over: one device, all of this host, or all of many hosts.

A step stays what one device would do with the whole batch: losses and gradients are over all of it
(see `losses.masked_mean`, `optimizer.GuardedAdamW`), and so are the statistics of batch norms.

On TensorFlow `tf.distribute.MirroredStrategy` copies the network to the devices of one host. On
JAX `keras.distribution.DataParallel` does so for one host or, joined by `jax.distributed`, many.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from flowseg.errors import ArgumentError
from flowseg.network.model import parts


class Spread(NamedTuple):
    """What a training is spread over.

    Attributes:
        scope: function that gives the context in which the network in training is made.
        here: devices of this host.
        hosts: how many hosts.
        host: the number of this one, from 0. The first keeps the run folder.
    """

    scope: Callable = contextlib.nullcontext
    here: int = 1
    hosts: int = 1
    host: int = 0

    @property
    def count(self) -> int:
        """Devices in all."""
        return self.here * self.hosts

    @contextlib.contextmanager
    def folder(self, run_dir: Path) -> Iterator[Path]:
        """Yield the folder that this host writes into: the run's, or one that goes afterwards."""
        if self.host == 0:
            yield run_dir
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)

    def copies(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Batches of one, once for each device of this host: frames of a set differ in size.

        So every device scores every frame, and the scores are those of one device.
        """
        if self.count == 1:
            return dataset
        return dataset.map(lambda *parts: tf.nest.map_structure(self._copy, parts))

    def _copy(self, part):
        return tf.repeat(part, self.here, axis=0)


ONE = Spread()


def find(
    batch_size: int,
    *,
    devices: str = "one",
    hosts: int = 1,
    host: int = 0,
    coordinator: str | None = None,
) -> Spread:
    """The `Spread` that is asked for; joins the hosts. To be called before JAX computes.

    Args:
        batch_size: of a step, over all devices.
        devices: "one", or "all" that are found.
        hosts: how many machines train together, on JAX.
        host: which of them this is, from 0.
        coordinator: where they meet: HOST:PORT of host 0.

    Raises:
        ArgumentError: values that do not fit each other, the backend or the devices.
    """
    jax = _jax() if keras.backend.backend() == "jax" else None
    if hosts > 1:
        if jax is None:
            raise ArgumentError(
                "hosts: many hosts train on JAX alone: set KERAS_BACKEND=jax", "hosts"
            )
        if host >= hosts or not coordinator:
            raise ArgumentError(
                f"hosts={hosts} wants host 0 to {hosts - 1} and coordinator",
                "hosts",
                "host",
                "coordinator",
            )
        jax.distributed.initialize(coordinator, hosts, host)
    joined = jax is not None and jax.process_count() > 1
    if joined:
        _meet()
    if devices == "one" and not joined:
        return ONE
    spread = _mirrored() if jax is None else _data_parallel(jax)
    if spread.count == 1:
        return ONE
    if batch_size % spread.count:
        raise ArgumentError(
            f"batch_size={batch_size} cannot be shared by {spread.count} devices evenly",
            "batch_size",
        )
    return spread


def _jax():
    import jax

    return jax


def _meet():
    """Have the hosts talk once while they are at the same place.

    Gloo, by which CPUs talk, gives up on hosts that come to their first talk over 30 s apart.
    """
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("start")


def _mirrored():
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    return Spread(strategy.scope, len(devices))


def _data_parallel(jax):
    # Each host reads its own share of every batch (`batches.training_batches`).
    shared = keras.distribution.DataParallel(auto_shard_dataset=False)
    return Spread(shared.scope, jax.local_device_count(), jax.process_count(), jax.process_index())


def synchronise_norms(network: keras.Model) -> None:
    """Have batch norms take the statistics of the whole batch, as they do on one device."""
    if keras.backend.backend() == "tensorflow":  # On JAX they do.
        for part in parts(network):
            for layer in part.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True
