"""Commands in forks of a Python that has imported TensorFlow, which takes each of them seconds."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
# What quiets TensorFlow comes before it. None of them starts a thread, which no fork would have.
_CONTEXT.set_forkserver_preload(
    ["flowseg.cli.entry", "tensorflow", "keras", "cv2", "matplotlib", "tensorboard"]
)


def run(module, arguments, cwd, timeout):
    """The CompletedProcess of `python -m MODULE ARGUMENTS`, with what it wrote as text.

    Raises:
        subprocess.TimeoutExpired: it was killed after so many seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = [Path(folder, name) for name in ("stdout", "stderr")]
        command = [module, *arguments]
        process = _CONTEXT.Process(target=_become, args=(command, cwd, dict(os.environ), written))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        told = [path.read_text() for path in written]
        return subprocess.CompletedProcess(command, process.exitcode, *told)


def _become(command, cwd, environment, written):
    """In the fork: be the command."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in zip((1, 2), written, strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = list(command)
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    finally:
        # Processes of multiprocessing leave without them.
        atexit._run_exitfuncs()
