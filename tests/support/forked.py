"""Run commands in forks of a process that has imported TensorFlow, which saves seconds each."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
# The module that quiets TensorFlow comes first. None starts a thread, which forks would lack.
CONTEXT.set_forkserver_preload(
    ["flowseg.cli.entry", "tensorflow", "keras", "cv2", "matplotlib", "tensorboard"]
)


def run(module, arguments, cwd, timeout):
    """Run `python -m MODULE ARGUMENTS`; return the CompletedProcess with its output as text.

    Raises:
        subprocess.TimeoutExpired: the process was killed after `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        command = [module, *arguments]
        process = CONTEXT.Process(target=_execute, args=(command, cwd, dict(os.environ), outputs))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        printed = [path.read_text() for path in outputs]
        return subprocess.CompletedProcess(command, process.exitcode, *printed)


def _execute(command, cwd, environment, outputs):
    """Execute the command in the fork."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in zip((1, 2), outputs, strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = list(command)
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    finally:
        # Processes of multiprocessing do not run exit handlers.
        atexit._run_exitfuncs()
