"""Models to compare FlowSeg with in `experiments.exports.benchmark`.

Each is (classes, flow, bytes of the weights): classes(image) returns the (H, W) uint8 classes of a
(H, W, 3) uint8 RGB frame, flow(image1, image2) the (H, W, 2) float32 flow of a frame pair. Weights
are random, because time does not depend on them.
"""

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from flowseg.errors import ArgumentError

if TYPE_CHECKING:
    import torch

# classes, flow and the bytes of the weights.
Peer = tuple[Callable, Callable, int]


def open_deeplab_raft(threads: int) -> Peer:
    """DeepLabV3-ResNet50 and RAFT-small, 12 iterations."""
    torch, torchvision = limit_torch(threads)
    raft = torchvision.models.optical_flow.raft_small(weights=None).eval()
    classes, size = torch_classes(torchvision.models.segmentation.deeplabv3_resnet50)

    def flow(image1, image2):
        frames = (torch_batch(image) * 2 - 1 for image in (image1, image2))
        with torch.inference_mode():
            return raft(*frames, num_flow_updates=12)[-1][0].permute(1, 2, 0).numpy()

    return classes, flow, size + torch_bytes(raft)


def open_lraspp_dis(threads: int) -> Peer:
    """LRASPP-MobileNetV3-Large and OpenCV's DIS, medium."""
    _, torchvision = limit_torch(threads)
    cv2.setNumThreads(threads)
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    classes, size = torch_classes(torchvision.models.segmentation.lraspp_mobilenet_v3_large)

    def flow(image1, image2):
        greys = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image1, image2))
        return dis.calc(*greys, None)

    return classes, flow, size


def limit_torch(threads: int) -> tuple[ModuleType, ModuleType]:
    """(torch, torchvision), limited to this number of threads.

    Raises:
        ValueError: PyTorch is not installed.
    """
    try:
        import torch
        import torchvision
    except ImportError as error:
        raise ArgumentError(
            "the peers need PyTorch: pip install -e '.[peers]', or choose other rows", "rows"
        ) from error
    torch.set_num_threads(threads)
    return torch, torchvision


def torch_batch(image: np.ndarray) -> "torch.Tensor":
    """A (H, W, 3) uint8 frame as (1, 3, H, W) float32, 0..1."""
    import torch

    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def torch_bytes(network: "torch.nn.Module") -> int:
    """Bytes of the network's weights."""
    return sum(x.numel() * x.element_size() for x in network.state_dict().values())


def torch_classes(build: Callable) -> tuple[Callable, int]:
    """(frame -> (H, W) uint8 ids of 19 classes, bytes of the weights) of a torchvision network.

    Its weights are random, because time does not depend on them.
    """
    import torch

    network = build(weights=None, weights_backbone=None, num_classes=19).eval()
    mean, deviation = (
        torch.tensor(x)[:, None, None] for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )

    def classes(image):
        with torch.inference_mode():
            logits = network((torch_batch(image) - mean) / deviation)["out"][0]
            return logits.argmax(0).to(torch.uint8).numpy()

    return classes, torch_bytes(network)


PEERS = {"deeplab_raft": open_deeplab_raft, "lraspp_dis": open_lraspp_dis}
