"""What goes to stderr: warnings, and libraries kept quiet. Import it before TensorFlow."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator


def warn(message: str) -> None:
    """One line on stderr."""
    print(f"warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def no_stderr() -> Iterator[None]:
    """Turn the descriptor of stderr away, for libraries that write to it past Python."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _QuietTensorFlow:
    """Import hook: TensorFlow's import chats on stderr whatever TF_CPP_MIN_LOG_LEVEL says.

    (tensorflow/tensorflow#100442.) Python's exceptions come through; only the descriptor of
    stderr is turned away, and only while `import tensorflow` runs.
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
                    # Looks for GPUs now: what it says of a machine without one goes the same way.
                    module.config.list_physical_devices()

            spec.loader.exec_module = execute_quietly
        return spec


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Level 0 is for a user who wants to see the log.
if os.environ["TF_CPP_MIN_LOG_LEVEL"] != "0" and "tensorflow" not in sys.modules:
    sys.meta_path.insert(0, _QuietTensorFlow)
