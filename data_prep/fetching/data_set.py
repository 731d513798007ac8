"""Describes a public data set: its licence, and the files to fetch or the steps to follow."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file to fetch; archives (.zip, .tar, .tar.gz, by `name`) are unpacked.

    Attributes:
        name: name of the file on disk.
        url: address.
        into: folder below the output folder for the file or the content of the archive.
        root: the only folder of the archive that is unpacked; "": the whole archive.
        holds: files or folders below `into` that exist once the file is fetched and unpacked.
        size: exact number of bytes, which is verified; None if no loader states it.
        about: approximate number of bytes as published, for messages and the check of free space.
        checksum: "md5:..." or "sha256:..." of the file, which is verified; "" if unknown.
    """

    name: str
    url: str
    holds: tuple[str, ...]
    into: str = ""
    root: str = ""
    size: int | None = None
    about: int | None = None
    checksum: str = ""


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        title: name for people.
        page: address of the owner's page.
        licence: name of the licence.
        licence_page: address of its text, or of the page that states the terms.
        terms: the main terms in a sentence.
        files: what is fetched; empty for sets that must be fetched by hand.
        steps: for sets without `files`: what to fetch, and what to unpack where.
        reader: module that converts the set.
        source: --source of the reader, below the output folder.
    """

    title: str
    page: str
    licence: str
    licence_page: str
    terms: str
    reader: str
    files: tuple[RemoteFile, ...] = ()
    steps: tuple[str, ...] = ()
    source: str = ""


KITTI_LICENCE = {
    "licence": "CC BY-NC-SA 3.0",
    "licence_page": "https://creativecommons.org/licenses/by-nc-sa/3.0/",
    "terms": "Not for commercial use; name the authors; pass changed data on under this licence.",
}
