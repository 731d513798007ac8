"""Trained networks that come with the package, by the name that commands take."""

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"
# Name -> folder of a packed network, see `network.packed_weights`.
NETWORKS = {"pretrained": _WEIGHTS, "candidate": _WEIGHTS / "candidate"}
