"""Trained networks that come with the package, by the name that commands take."""

from pathlib import Path

# Name -> folder of a packed network, see `network.packed_weights`.
NETWORKS = {"pretrained": Path(__file__).parent / "weights"}
