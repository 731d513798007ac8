"""Data sets of the download command with local addresses, and small archives for them."""

import dataclasses
import io
import tarfile
import zipfile

from data_prep.fetching.sets import SETS


def zipped(folder):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return data.getvalue()


def zip_of(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def tar_of(files, mode="w"):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def local(name, address):
    """A data set of the table, with local addresses and without sizes and checksums."""
    files = [
        dataclasses.replace(file, url=f"{address}/{file.name}", size=None, about=None, checksum="")
        for file in SETS[name].files
    ]
    return dataclasses.replace(SETS[name], files=tuple(files))


def listing(folder):
    """Files of a folder that are no notes of the command."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in paths if not path.parts[0].startswith("."))
