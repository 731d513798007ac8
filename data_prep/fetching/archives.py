"""Unpacks zip and tar archives into a folder, and moves the result beside existing files.

The content of an archive is not trusted: a member that would be written outside the folder, a link,
a device, or content that is far larger than the archive is refused before anything is kept.
"""

import contextlib
import errno
import filecmp
import functools
import gzip
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from data_prep.fetching.http_files import CHUNK, check_space

ENDINGS = (".zip", ".tar", ".tar.gz")
# Images and flow files shrink to a fraction, not to a hundredth.
MAX_RATIO, SMALL = 100, 1_000_000
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    UnicodeDecodeError,
    # zipfile: members with a password, and methods of compression that it does not know.
    RuntimeError,
)


class ArchiveError(ValueError):
    """The archive is damaged, or its content is unsafe."""


class _Member(NamedTuple):
    name: str
    size: int
    is_folder: bool
    is_file: bool
    open: Callable[[], BinaryIO]


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive that `unpack` reads."""
    return name.endswith(ENDINGS)


def unpack(archive: Path, folder: Path, root: str = "") -> None:
    """Unpack an archive into a new folder; nothing is left of it after an error.

    Args:
        archive: file with one of `ENDINGS`.
        folder: created; must not exist.
        root: folder of the archive; only its content is unpacked, without `root` in the paths.

    Raises:
        ArchiveError: the archive is damaged, or a member is unsafe.
        OSError: no space left on the disk, or `folder` is not writable.
    """
    folder.mkdir()
    try:
        _unpack(archive, folder, root)
    except BaseException:
        shutil.rmtree(folder)
        raise


def _unpack(archive, folder, root):
    try:
        with _open(archive) as members:
            wanted = _select(archive, members, root)
            total = sum(member.size for _, member in wanted)
            check_space(folder, total)
            label = f"unpack {archive.name}"
            with tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=None) as bar:
                for path, member in wanted:
                    _write(archive, folder / path, member, bar)
    except _DAMAGED as error:
        raise ArchiveError(f"{archive}: the archive is damaged ({error})") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            advice = "no space left on the disk: free some space and run the same command again"
            raise OSError(errno.ENOSPC, advice, str(folder)) from error
        raise


@contextlib.contextmanager
def _open(archive) -> Iterator[Iterator[_Member]]:
    """Yield an iterator over the members of an archive, in their order."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield (_zip_member(opened, info) for info in opened.infolist())
    else:
        with tarfile.open(archive, "r:gz" if archive.name.endswith(".gz") else "r:") as opened:
            yield _tar_members(opened)


def _zip_member(opened, info):
    # Archives made on Unix store the mode of the file here; others leave it 0.
    kind = stat.S_IFMT(info.external_attr >> 16)
    return _Member(
        name=info.filename,
        size=info.file_size,
        is_folder=info.is_dir(),
        is_file=kind in (0, stat.S_IFREG),
        open=functools.partial(opened.open, info),
    )


def _tar_members(opened):
    for info in opened:
        yield _Member(
            name=info.name,
            size=info.size,
            is_folder=info.isdir(),
            # A sparse file states a size that has nothing to do with the archive's.
            is_file=info.isreg() and not info.issparse(),
            open=functools.partial(opened.extractfile, info),
        )
    # tarfile takes a damaged header, and the end of a truncated file, for the end of the archive.
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")
    # gzip compares its checksum at the end.
    while opened.fileobj.read(CHUNK):
        pass


def _select(archive, members, root):
    """Check all members; return (path below `root`, member) of those to unpack."""
    limit = max(SMALL, MAX_RATIO * archive.stat().st_size)
    total, selected = 0, []
    for member in members:
        path = _check(archive, member)
        total += member.size
        if total > limit:
            raise ArchiveError(
                f"{archive}: its content has over {MAX_RATIO} times the size of the archive"
            )
        if path.is_relative_to(root):
            selected.append((path.relative_to(root), member))
    return selected


def _check(archive, member):
    """Return the path of a member; raise ArchiveError if it is unsafe."""
    name, path = member.name, PurePosixPath(member.name)
    outside = path.is_absolute() or ".." in path.parts
    # Windows reads these as separators and drives.
    if outside or "\\" in name or re.match("[A-Za-z]:", name):
        raise ArchiveError(f"{archive}: the member {name!r} is outside the folder")
    if not member.is_folder and not member.is_file:
        raise ArchiveError(f"{archive}: the member {name!r} is a link or device, not a file")
    return path


def _write(archive, path, member, bar):
    try:
        if member.is_folder:
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveError(f"{archive}: two members have the name {member.name!r}") from error
    with file, member.open() as content:
        while chunk := content.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        if file.tell() != member.size:
            raise ArchiveError(f"{archive}: the archive is damaged ({member.name!r} is too short)")


def merge(source: Path, target: Path) -> None:
    """Move the content of a folder into another one, which may have files; `source` is removed.

    Existing files are never replaced: nothing is moved if one has other content.

    Args:
        source: folder on the same disk.
        target: folder; created if missing.

    Raises:
        ValueError: a file exists with other content.
        OSError: the files cannot be moved.
    """
    _refuse_conflicts(source, target)
    target.mkdir(parents=True, exist_ok=True)
    _move(source, target)


def _refuse_conflicts(source, target):
    for new in sorted(source.iterdir()):
        old = target / new.name
        if new.is_dir() and old.is_dir():
            _refuse_conflicts(new, old)
        elif os.path.lexists(old) and not (
            new.is_file() and old.is_file() and filecmp.cmp(new, old, shallow=False)
        ):
            raise ValueError(
                f"{old}: exists with other content, such as that of another data set; nothing was "
                "replaced: move it away, or choose another folder"
            )


def _move(source, target):
    for new in sorted(source.iterdir()):
        old = target / new.name
        if new.is_dir() and old.is_dir():
            _move(new, old)
        else:
            # A file of the same content, which an interrupted run has left, is replaced.
            os.replace(new, old)
    source.rmdir()
