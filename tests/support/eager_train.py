"""`python -m tests.support.eager_train`: `flowseg.train`, eagerly, since tracing takes a minute."""

from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

# isort: split
import tensorflow as tf

from flowseg import train


def main():
    """Train without a graph, by the flags."""
    tf.config.run_functions_eagerly(True)
    train.entry_point()


if __name__ == "__main__":
    main()
