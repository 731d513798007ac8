"""Distributes a training over one device, all devices of this host, or those of many hosts.

A step is equivalent to one device processing the whole batch: losses and gradients are computed
over all of it (see `losses.masked_mean`, `optimizer.GuardedAdamW`), and so are the statistics of
batch norms.

On TensorFlow `tf.distribute.MirroredStrategy` copies the network to the devices of one host. On
JAX `keras.distribution.DataParallel` does this for one host, or for many via `jax.distributed`.
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


class Devices(NamedTuple):
    """Devices over which a training is distributed.

    Attributes:
        scope: function that returns the context in which to build the network in training.
        here: number of devices of this host.
        hosts: number of hosts.
        host: index of this host, from 0. The first host writes the run folder.
    """

    scope: Callable = contextlib.nullcontext
    here: int = 1
    hosts: int = 1
    host: int = 0

    @property
    def count(self) -> int:
        """Total number of devices."""
        return self.here * self.hosts

    @contextlib.contextmanager
    def folder(self, run_dir: Path) -> Iterator[Path]:
        """Yield the folder to which this host writes: the run folder, or a temporary one."""
        if self.host == 0:
            yield run_dir
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)

    def copies(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Repeat each batch of one frame for each device of this host.

        Frames of a set differ in size, so they cannot be batched and split over devices. Instead,
        every device scores every frame, and the scores equal those of one device.
        """
        if self.count == 1:
            return dataset
        return dataset.map(lambda *parts: tf.nest.map_structure(self._copy, parts))

    def _copy(self, part):
        return tf.repeat(part, self.here, axis=0)


ONE_DEVICE = Devices()


def find(
    batch_size: int,
    *,
    devices: str = "one",
    hosts: int = 1,
    host: int = 0,
    coordinator: str | None = None,
) -> Devices:
    """Set up the devices and connect the hosts. Must be called before any JAX computation.

    Args:
        batch_size: batch size of a step, over all devices.
        devices: "one", or "all" available devices.
        hosts: number of machines that train together, on JAX.
        host: index of this machine, from 0.
        coordinator: address at which the hosts connect: HOST:PORT of host 0.

    Raises:
        ArgumentError: the values do not fit each other, the backend or the devices.
    """
    jax = _jax() if keras.backend.backend() == "jax" else None
    if hosts > 1:
        if jax is None:
            raise ArgumentError(
                "hosts: training on several machines requires JAX: set KERAS_BACKEND=jax", "hosts"
            )
        if host >= hosts or not coordinator:
            raise ArgumentError(
                f"hosts={hosts} requires host 0 to {hosts - 1} and coordinator",
                "hosts",
                "host",
                "coordinator",
            )
        jax.distributed.initialize(coordinator, hosts, host)
    joined = jax is not None and jax.process_count() > 1
    if joined:
        _synchronise_hosts()
    if devices == "one" and not joined:
        return ONE_DEVICE
    devices = _mirrored() if jax is None else _data_parallel(jax)
    if devices.count == 1:
        return ONE_DEVICE
    if batch_size % devices.count:
        raise ArgumentError(
            f"batch_size={batch_size} cannot be split evenly over {devices.count} devices",
            "batch_size",
        )
    return devices


def _jax():
    import jax

    return jax


def _synchronise_hosts():
    """Let the hosts communicate for the first time while they are at the same point.

    Gloo, which connects CPU hosts, times out if they start their first communication more than
    30 s apart.
    """
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("start")


def _mirrored():
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    return Devices(strategy.scope, len(devices))


def _data_parallel(jax):
    # Each host reads its share of every batch itself (`batches.training_batches`).
    shared = keras.distribution.DataParallel(auto_shard_dataset=False)
    return Devices(shared.scope, jax.local_device_count(), jax.process_count(), jax.process_index())


def synchronise_norms(network: keras.Model) -> None:
    """Make batch norms use the statistics of the whole batch, as on one device."""
    if keras.backend.backend() == "tensorflow":  # On JAX they already do.
        for part in parts(network):
            for layer in part.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True
