"""Prints warnings, and sets up TensorFlow: what it prints, and its kernels. Import it first."""

import contextlib
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Iterator


def warn(message: str) -> None:
    """Print a one-line warning to stderr."""
    print(f"warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def no_stderr() -> Iterator[None]:
    """Discard output to stderr, even of libraries that bypass Python's `sys.stderr`."""
    sys.stderr.flush()
    saved, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(devnull)


# Only one thread at a time may redirect stderr.
_CAPTURE = threading.Lock()


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Collect output to stderr, even of libraries that bypass Python's `sys.stderr`.

    Yields:
        A list that holds the lines after the block.
    """
    lines = []
    with _CAPTURE, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


class _QuietTensorFlow:
    """Import hook that hides what TensorFlow's import prints to stderr.

    TensorFlow prints there regardless of TF_CPP_MIN_LOG_LEVEL (tensorflow/tensorflow#100442).
    Python exceptions still propagate: only the file descriptor of stderr is redirected, and only
    while `import tensorflow` runs.
    """

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        if spec:
            execute = spec.loader.exec_module

            def execute_quietly(module):
                with no_stderr():
                    execute(module)
                    # Detects GPUs now, so that messages about missing ones are hidden too.
                    module.config.list_physical_devices()

            spec.loader.exec_module = execute_quietly
        return spec


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow uses oneDNN's kernels by default only on CPUs with AVX512; on others, too, a training
# step is faster with them (docs/results/large-motion.md).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Users can set the level to 0 to see the log.
if os.environ["TF_CPP_MIN_LOG_LEVEL"] != "0" and "tensorflow" not in sys.modules:
    sys.meta_path.insert(0, _QuietTensorFlow)
