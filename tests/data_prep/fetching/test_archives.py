"""Tests of unpacking: contents, unsafe members, damage, and moving beside existing files."""

import errno
import io
import os
import stat
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from data_prep.fetching import archives, http_files

FILES = {"top/a.txt": b"a" * 2000, "top/sub/b.bin": os.urandom(5000), "c": b""}


def write_zip(path, members, **facts):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = facts.get("mode", 0) << 16
            archive.writestr(info, data)
    return path


def write_tar(path, members, **facts):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in facts.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


WRITE = {"a.zip": write_zip, "a.tar": write_tar, "a.tar.gz": write_tar}


def write(tmp_path, name, members, **facts):
    return WRITE[name](tmp_path / name, members, **facts)


def content(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refuse(archive, match):
    """Assert that unpacking fails and that nothing is left in or outside the folder."""
    before = sorted(archive.parent.parent.rglob("*"))
    with pytest.raises(archives.ArchiveError, match=match) as raised:
        archives.unpack(archive, archive.parent / "new")
    assert str(archive) in str(raised.value)
    assert sorted(archive.parent.parent.rglob("*")) == before


@pytest.mark.parametrize("name", WRITE)
def test_files_are_unpacked(tmp_path, name):
    archives.unpack(write(tmp_path, name, FILES), tmp_path / "new")
    assert content(tmp_path / "new") == FILES


@pytest.mark.parametrize("name", WRITE)
def test_only_one_folder_is_unpacked(tmp_path, name):
    members = {**FILES, "top/sub2/no": b"1", "top/subway": b"2"}
    archives.unpack(write(tmp_path, name, members), tmp_path / "new", "top/sub")
    assert content(tmp_path / "new") == {"b.bin": FILES["top/sub/b.bin"]}


def test_folders_and_current_directory_in_names(tmp_path):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as opened:
        for name in (".", "./empty", "./top"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            opened.addfile(info)
        info = tarfile.TarInfo("./top/a")
        info.size = 3
        opened.addfile(info, io.BytesIO(b"abc"))
    archives.unpack(archive, tmp_path / "new")
    assert content(tmp_path / "new") == {"top/a": b"abc"}
    assert (tmp_path / "new/empty").is_dir()


@pytest.mark.parametrize("name", WRITE)
@pytest.mark.parametrize("member", ["../out", "top/../../out", "/tmp/out25", "..\\out", "C:out"])
def test_member_outside_the_folder_is_refused(tmp_path, name, member):
    archive = write(tmp_path, name, {"good": b"1", member: b"2"})
    refuse(archive, "is outside the folder")


def test_symbolic_link_in_a_zip_is_refused(tmp_path):
    refuse(
        write_zip(tmp_path / "a.zip", {"link": b"/etc"}, mode=stat.S_IFLNK | 0o777),
        "'link' is a link or device",
    )


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_link_and_device_in_a_tar_are_refused(tmp_path, kind):
    archive = write_tar(tmp_path / "a.tar", {"link": b""}, type=kind, linkname="/etc/passwd")
    refuse(archive, "'link' is a link or device")


def test_file_through_a_link_in_the_archive_is_refused(tmp_path):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as opened:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path)
        opened.addfile(info)
        info = tarfile.TarInfo("link/out")
        opened.addfile(info)
    refuse(archive, "'link' is a link or device")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_content_far_larger_than_the_archive_is_refused(tmp_path, name):
    refuse(write(tmp_path, name, {"zeros": bytes(5_000_000)}), "over 100 times the size")


def test_zip_that_states_a_smaller_size_than_it_holds(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"a": bytes(100_000)})
    size = (100_000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (500).to_bytes(4, "little")))
    refuse(archive, "the archive is damaged")


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_two_members_of_one_name(tmp_path, name):
    archive = write(tmp_path, name, {"top/a": b"1", "./top/a": b"2"})
    refuse(archive, "two members have the name './top/a'")


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_file_where_a_folder_is_needed(tmp_path, name):
    refuse(write(tmp_path, name, {"top": b"1", "top/a": b"2"}), "two members have the name 'top/a'")


@pytest.mark.parametrize("name", WRITE)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.5, 0.7])
def test_truncated_archive_is_refused(tmp_path, name, keep):
    archive = write(tmp_path, name, {f"{k}": os.urandom(3000) for k in range(9)})
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * keep)])
    refuse(archive, "the archive is damaged")


@pytest.mark.parametrize("end", [0, 100], ids=["between members", "within a header"])
def test_tar_that_ends_where_a_member_would_begin_is_refused(tmp_path, end):
    archive = write_tar(tmp_path / "a.tar", {f"{k}": bytes(512) for k in range(4)})
    # Two members, each a header and a block of data.
    archive.write_bytes(archive.read_bytes()[: 4 * 512 + end])
    refuse(archive, "the archive is damaged .its end is missing")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_damaged_bytes_are_noticed(tmp_path, name):
    archive = write(tmp_path, name, {"a": os.urandom(200_000)})
    data = bytearray(archive.read_bytes())
    data[100_000] ^= 255
    archive.write_bytes(data)
    refuse(archive, "the archive is damaged")


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    archive = write_zip(tmp_path / "a.zip", FILES)
    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(OSError, match="free some space and run the same command") as raised:
        archives.unpack(archive, tmp_path / "new")
    assert raised.value.errno == errno.ENOSPC
    assert sorted(tmp_path.iterdir()) == [archive]


def test_free_space_is_checked_before_unpacking(tmp_path, monkeypatch):
    monkeypatch.setattr(http_files.shutil, "disk_usage", lambda _: SimpleNamespace(free=6500))
    with pytest.raises(OSError, match="7 kB are needed and 6.5 kB are free"):
        archives.unpack(write_zip(tmp_path / "a.zip", FILES), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def fill(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_merged_files_lie_beside_existing_ones(tmp_path):
    target = fill(tmp_path / "target", {"Scene01/clone/rgb/1": b"1", "mine": b"2"})
    source = fill(tmp_path / "source", {"Scene01/clone/flow/1": b"3", "Scene02/a": b"4"})
    archives.merge(source, target)
    assert content(target) == {
        "Scene01/clone/rgb/1": b"1",
        "mine": b"2",
        "Scene01/clone/flow/1": b"3",
        "Scene02/a": b"4",
    }
    assert not source.exists()


def test_file_of_other_content_is_not_replaced(tmp_path):
    target = fill(tmp_path / "target", {"a": b"same", "z/mine": b"mine"})
    source = fill(tmp_path / "source", {"a": b"same", "b": b"new", "z/mine": b"other"})
    with pytest.raises(ValueError, match="target/z/mine: exists with other content"):
        archives.merge(source, target)
    assert content(target) == {"a": b"same", "z/mine": b"mine"}


@pytest.mark.parametrize("old, new", [("a", "a/b"), ("a/b", "a")])
def test_folder_and_file_of_one_name_conflict(tmp_path, old, new):
    target = fill(tmp_path / "target", {old: b"1"})
    with pytest.raises(ValueError, match="target/a: exists with other content"):
        archives.merge(fill(tmp_path / "source", {new: b"1"}), target)
    assert content(target) == {old: b"1"}


def test_interrupted_merge_is_finished_by_the_next(tmp_path):
    files = {"a/1": b"1", "a/2": b"2", "b/3": b"3"}
    target = fill(tmp_path / "target", {"a/1": b"1"})
    archives.merge(fill(tmp_path / "source", files), target)
    assert content(target) == files
