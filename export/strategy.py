"""On which devices a training runs, by TensorFlow's own engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec

from export.errors import RecipeError
from export.legacy_keras import tf

Name = Literal["none", "mirrored", "multiworker"]


@dataclass(frozen=True)
class Strategy:
    """inner: TensorFlow's, or None. chief: whether this process keeps what it writes; of several machines one does.

    All machines see the same folders: the others read the chief's checkpoint when a training goes on.
    """

    inner: Any = None
    chief: bool = True

    def scope(self) -> AbstractContextManager[Any]:
        """Return where a network has to be built, compiled and given weights."""
        scope: AbstractContextManager[Any] = nullcontext() if self.inner is None else self.inner.scope()
        return scope

    @contextmanager
    def place(self, folder: Path) -> Iterator[Path]:
        """Give the folder for what is written after a training; for others than the chief one that is thrown away."""
        if self.chief:
            yield folder
        else:
            with TemporaryDirectory() as away:
                yield Path(away)

    def spread(self, batches: Any) -> Any:
        """Return the pipeline with each batch divided among the devices; every machine draws the same order and takes its turn."""
        if self.inner is None:
            return batches
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        return batches.with_options(options)


ONE_DEVICE = Strategy()


def make_strategy(name: Name) -> Strategy:
    """Return the strategy.

    Args:
        name: `none` for one device, `mirrored` for all GPUs of this machine (or its logical CPU devices where it has no GPU),
            `multiworker` for several machines, each of which runs the same command with its own TF_CONFIG.

    Raises:
        RecipeError: if TF_CONFIG is not set, or is not what TensorFlow expects.
    """
    if name == "none":
        return ONE_DEVICE
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return Strategy(tf.distribute.MirroredStrategy([device.name for device in devices]))
    try:
        task = msgspec.json.decode(os.environ["TF_CONFIG"])["task"]
        index = int(task["index"])
    except (KeyError, TypeError, ValueError, msgspec.DecodeError):
        raise RecipeError(
            "For the strategy multiworker each machine needs TF_CONFIG, a JSON object with the addresses of all of them under "
            'cluster.worker and its own number under task: {"type": "worker", "index": 0}.'
        ) from None
    return Strategy(tf.distribute.MultiWorkerMirroredStrategy(), chief=index == 0)
