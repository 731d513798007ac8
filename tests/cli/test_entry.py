"""Commands: exit codes, and errors as one line instead of a traceback."""

import errno
import pickle
import subprocess
import sys

import pytest

from flowseg.cli import entry
from flowseg.errors import ArgumentError
from tests.conftest import ROOT

SCRIPT = """
import sys
from absl import flags
from flowseg.cli import entry
flags.DEFINE_integer("steps", 3, "Number of steps.")
def main():
    {body}
entry.run(main, usage="A test command.")
"""


def run(body, *args, **env):
    command = [sys.executable, "-c", SCRIPT.format(body=body), *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise ValueError('a.png: bad,\\nand more')", "error: a.png: bad, and more\n"),
        (f"raise OSError({errno.ENOENT}, 'No such file', 'a.png')", "error: a.png: No such file\n"),
        ("raise OSError('lost')", "error: lost\n"),
        ("raise ValueError", "error: ValueError\n"),
    ],
)
def test_errors_are_one_line(body, line):
    done = run(body)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_argument_error_shows_flags():
    """Words that only start like an argument are unchanged."""
    text = "save=3 must divide save_every=10, which saves"
    error = ArgumentError(text, "save", "save_every")
    assert str(error) == text
    assert entry.message(error) == "--save=3 must divide --save_every=10, which saves"
    assert entry.message(ArgumentError("a file")) == "a file"


def test_paths_and_values_are_not_shown_as_flags():
    error = ArgumentError("is a file; output must be a folder", "output", path="output")
    assert str(error) == "output: is a file; output must be a folder"
    assert entry.message(error) == "output: is a file; --output must be a folder"
    error = ArgumentError("photos=photos: not in photos/a or a/photos or photos.txt.", "photos")
    assert entry.message(error) == f"--{error}"


def test_argument_error_survives_pickling():
    error = ArgumentError("is a file; output must be a folder", "output", path="output")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), entry.message(copy)) == (str(error), entry.message(error))


def test_names_that_are_not_utf8_are_escaped():
    done = run(r"print('caf\udce9'); {}['b\udce9'.encode()]")
    assert (done.returncode, done.stdout) == (1, "caf\\udce9\n")
    assert done.stderr == "error: b\\udce9: not valid UTF-8: rename this file or folder\n"


def test_backslashes_are_mentioned():
    done = run("raise ValueError(sys.argv[1] + ': no such file')", "C:\\a")
    assert done.stderr.startswith("error: unexpected argument")
    done = run("raise ValueError('data\\\\1: no such file')", "--flagfile=", "--steps=1")
    assert "Windows" not in done.stderr
    text = "flags.DEFINE_string('data', '', ''); "
    code = SCRIPT.format(body="raise ValueError(flags.FLAGS.data + ': no such file')")
    code = code.replace("def main", text + "\ndef main")
    command = [sys.executable, "-c", code, "--data=data\\train"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == (
        "error: data\\train: no such file (a Windows path? FlowSeg needs / instead of \\ here)\n"
    )


def test_bugs_and_debugging_show_the_traceback():
    bug = run("{}['x']")
    assert bug.returncode == 1 and "Traceback" in bug.stderr and "KeyError" in bug.stderr
    debug = run("raise ValueError('bad')", FLOWSEG_DEBUG="1")
    assert debug.returncode == 1 and "Traceback" in debug.stderr


def test_ctrl_c_and_success():
    assert run("raise KeyboardInterrupt").returncode == 130
    done = run("print(flags.FLAGS.steps)", "--steps=5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")


def test_wrong_flags_and_help():
    wrong = run("pass", "--stpes=5")
    assert wrong.returncode == 1 and wrong.stderr.count("\n") == 1
    assert "'stpes'" in wrong.stderr and "steps" in wrong.stderr and "--help" in wrong.stderr
    text = run("pass", "--help")
    assert text.returncode == 0 and text.stdout.startswith("A test command.")


def test_help_of_which_a_pager_reads_only_the_beginning():
    command = [sys.executable, "-c", SCRIPT.format(body="pass"), "--help"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_flagfile_of_windows_editors(tmp_path):
    path = tmp_path / "my.flags"
    for text in ("--steps=5\n", "# Comment.\n--steps=5\n", "\n--steps=5\n"):
        path.write_text(text, encoding="utf-8-sig")
        done = run("print(flags.FLAGS.steps)", f"--flagfile={path}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")
    path.write_text("--steps=5\n", encoding="utf-16")
    done = run("pass", f"--flagfile={path}")
    assert done.returncode == 1 and done.stderr.startswith("error: --flagfile: not UTF-8 text")
    assert done.stderr.count("\n") == 1


def test_tensorflow_is_quiet_and_its_errors_are_one_line():
    body = "import tensorflow as tf; tf.strings.to_number('x')"
    done = run(body)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "could not correctly convert string: x" in done.stderr


def test_command_in_a_new_process_is_quiet(tmp_path):
    """In a new interpreter, which most tests avoid: see `forked`."""
    arguments = ["--train_records=no/train-*", f"--run_dir={tmp_path}/run"]
    command = [sys.executable, "-m", "flowseg.train", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no/train-*: no record files match; has the data been converted?\n"
