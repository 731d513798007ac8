"""`python -m tests.support.small_train`: `flowseg.train` with a small encoder and without a graph.

Tracing the graph of a training takes a minute.
"""

from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

# isort: split
import tensorflow as tf

from flowseg import train
from tests.support import small_encoder

if __name__ == "__main__":
    tf.config.run_functions_eagerly(True)
    small_encoder.install()
    train.entry_point()
