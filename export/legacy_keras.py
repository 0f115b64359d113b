"""The one place that imports TensorFlow.

tensorflow-model-optimization works with Keras 2 only, which TensorFlow uses when TF_USE_LEGACY_KERAS is set before its import.
"""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras as keras

__all__ = ["keras", "tf"]
