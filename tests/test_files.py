"""Result files: replaced atomically, through links, into pipes and devices; locks."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from flowseg import files
from flowseg.errors import ArgumentError
from tests.conftest import ROOT


def test_failed_write_changes_nothing(tmp_path):
    path = tmp_path / "a.txt"
    files.write(path, "old")
    with pytest.raises(OSError) as caught, files.atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(temporary))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error", [OSError("out.txt: no such codec"), PermissionError(13, "Permission denied", "in.txt")]
)
def test_message_that_names_its_file_is_unchanged(tmp_path, monkeypatch, error):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError) as caught, files.atomic("out.txt"):
        raise error
    assert caught.value is error


def test_blocked_parent_is_reported_with_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        files.write(tmp_path / "file/a.txt", "x")
    assert caught.value.filename == str(tmp_path / "file/a.txt")


def test_symbolic_link_is_kept(tmp_path):
    target, link = tmp_path / "far/target.txt", tmp_path / "link.txt"
    link.symlink_to("far/target.txt")
    files.write(link, "one")  # creates the target
    assert link.is_symlink() and target.read_text() == "one"
    files.write(link, "two")
    assert link.is_symlink() and target.read_text() == "two"
    assert os.listdir(target.parent) == ["target.txt"]


def test_symbolic_link_to_a_folder_is_kept(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    for text in ("one", "two"):
        with files.atomic(link) as temporary:
            temporary.mkdir()
            (temporary / "a.txt").write_text(text)
        assert link.is_symlink() and (tmp_path / "real/a.txt").read_text() == text
    (tmp_path / "later").symlink_to(tmp_path / "not yet")
    files.write(tmp_path / "later/b.txt", "b")
    assert (tmp_path / "not yet/b.txt").read_text() == "b"


def test_link_to_itself_is_an_error(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        files.write(tmp_path / "loop", "x")


def test_fifo_receives_the_content(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "fifo").read_text()))
    reader.start()
    files.write(tmp_path / "fifo", "content")
    reader.join()
    assert received == ["content"] and (tmp_path / "fifo").is_fifo()


def test_device_remains_a_device(tmp_path):
    (tmp_path / "nowhere").symlink_to(os.devnull)
    for path in (os.devnull, tmp_path / "nowhere"):
        files.write(path, "content")
    assert not os.path.isfile(os.devnull) and os.path.islink(tmp_path / "nowhere")
    with pytest.raises(OSError, match="not a folder"), files.atomic(os.devnull) as temporary:
        temporary.mkdir()


@pytest.mark.parametrize("piped", [False, True])
def test_standard_output_receives_the_content_in_order(tmp_path, piped):
    code = "from flowseg import files; print('first'); files.write('/dev/stdout', 'second\\n')"
    command = [sys.executable, "-c", f"{code}; print('third')"]
    if piped:
        text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    else:
        with open(tmp_path / "log", "w") as log:
            subprocess.run(command, cwd=ROOT, stdout=log, check=True)
        text = (tmp_path / "log").read_text()
    assert text == "first\nsecond\nthird\n"


def test_standard_error_and_numbered_descriptors(tmp_path):
    code = "from flowseg import files; files.write('/dev/stderr', 'second\\n')"
    code = f"import sys; print('first', file=sys.stderr); {code}; print('third', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "first\nsecond\nthird\n")
    with open(tmp_path / "log", "w") as log:
        log.write("first\n")
        log.flush()
        files.write(f"/dev/fd/{log.fileno()}", "second\n")
        log.write("third\n")
    assert (tmp_path / "log").read_text() == "first\nsecond\nthird\n"


def test_longest_name_works(tmp_path):
    path = tmp_path / ("ä" * 125 + "b.png")
    assert len(os.fsencode(path.name)) == 255
    with files.atomic(path) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("x")
    assert os.listdir(tmp_path) == [path.name]


def test_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    files.write(path, f"--run_dir={path}\n")
    assert files.read_text(path) == f"--run_dir={path}\n"
    with pytest.raises(ArgumentError, match="name that is valid UTF-8") as caught:
        files.check_utf8(path, "output")
    assert caught.value.with_flags().endswith("give another --output")
    files.check_utf8(tmp_path / "café", "output")


def test_locked_folder_is_refused(tmp_path):
    message = "another run is using this folder: give another output"
    with files.lock(tmp_path / "new", message, "output"):
        with pytest.raises(ArgumentError) as caught:
            files.lock(tmp_path / "new", message, "output")
        assert caught.value.with_flags().endswith("new: " + message.replace("output", "--output"))
    files.lock(tmp_path / "new", message).close()
