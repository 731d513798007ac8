"""Fetch the official archives of a public data set and unpack them for its reader.

    python -m data_prep.download --set kitti
    python -m data_prep.download --set kitti --output KITTI --accept_licence

The first form shows the licence and what would be fetched. The second fetches the files from their
owner's server, verifies and unpacks them, and prints the command that converts the set. A run that
was interrupted continues; finished files are skipped. For sets that need an account, the command
says where to go and what to unpack where.
"""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_prep.fetching import archives, http_files
from data_prep.fetching.data_set import DataSet, RemoteFile
from data_prep.fetching.sets import SETS
from flowseg import files, tables
from flowseg.cli import entry
from flowseg.errors import ArgumentError

# Folder in the output for archives that are not unpacked yet and for what was finished.
STATE = ".fetched"


def describe(data_set: DataSet, output: str = "OUTPUT") -> str:
    """Return the licence of a data set, and its files with sizes or the steps to fetch them."""
    rows = [
        ("page", data_set.page),
        ("licence", data_set.licence),
        ("", data_set.licence_page),
        ("terms", data_set.terms),
    ]
    if data_set.files:
        rows_of_files = [(file.name, _size(file), file.url) for file in data_set.files]
        body = tables.plain(rows_of_files, left=3)
        known = sum(file.size or file.about or 0 for file in data_set.files)
        heading = "files"
        if known:
            heading += f" ({http_files.gigabytes(known)}; unpacked, they need about as much again)"
    else:
        heading = "this set cannot be fetched by this command; by hand:"
        steps = [step.format(output=output) for step in data_set.steps]
        body = "\n".join(f"  {k}. {step}" for k, step in enumerate(steps, 1))
    facts = tables.plain(rows, left=2)
    return f"{data_set.title}\n{facts}\n{heading}\n{body}"


def _size(file):
    if file.size is not None:
        return http_files.gigabytes(file.size)
    return f"about {http_files.gigabytes(file.about)}" if file.about else "size unknown"


def fetch_set(
    data_set: DataSet, output: str | Path, names: Sequence[str] | None = None
) -> list[RemoteFile]:
    """Fetch and unpack the files of a data set below `output`.

    Args:
        data_set: set with files.
        output: folder; created if missing.
        names: names of the files to fetch; default: all.

    Returns:
        The files that were fetched, without those that an earlier run has finished.

    Raises:
        ValueError: an unknown name, a file that exists with other content, or what the server sent
            is not the expected file.
        OSError: no connection, an error of the server, or a full disk.
    """
    known = [file.name for file in data_set.files]
    if unknown := sorted(set(names or ()) - set(known)):
        raise ArgumentError(
            f"files={unknown[0]}: not a file of this set; its files are {', '.join(known)}", "files"
        )
    output = files.make_folder(output)
    busy = "another download is using this folder: choose another output"
    with files.lock(output, busy, "output"):
        chosen = [file for file in data_set.files if not names or file.name in names]
        todo = [file for file in chosen if not _is_done(file, output)]
        for file in chosen:
            if file in todo:
                _refuse_foreign(file, output)
            else:
                print(f"{file.name}: fetched earlier")
        _check_space(todo, output)
        for file in todo:
            _fetch_file(file, output, data_set.page)
    return todo


def _refuse_foreign(file, output):
    """Raise ArgumentError before a long fetch if the folder holds such files of another origin."""
    if _read_state(file, output):
        return
    for path in (output / file.into / name for name in file.holds):
        if path.exists():
            raise ArgumentError(
                "exists, and was not fetched by this command: move it away, choose another output, "
                f"or leave {file.name} out of files",
                "output",
                "files",
                path=path,
            )


def _check_space(todo, output):
    """Raise OSError if the disk is too small for the known sizes of the files."""
    sizes = [file.size or file.about or 0 for file in todo]
    paths = [output / STATE / file.name for file in todo]
    kept = [q for path in paths for q in (path, http_files.partial_path(path)) if q.exists()]
    # Archives are deleted one by one, as soon as they are unpacked.
    needed = sum(sizes) + max(sizes, default=0) - sum(path.stat().st_size for path in kept)
    http_files.check_space(output, needed)


def _fetch_file(file, output, page):
    """Fetch, verify and unpack one file."""
    state = files.make_folder(output / STATE)
    path, unpacked = state / file.name, state / f".partial-unpacked-{file.name}"
    shutil.rmtree(unpacked, ignore_errors=True)
    if not path.exists():
        http_files.fetch(file.url, path, file.size, file.checksum, page)
    try:
        _unpack(file, path, unpacked, page)
        _write_state(file, output, "unpacking")
        archives.merge(unpacked, output / file.into)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    _write_state(file, output, "done")
    path.unlink(missing_ok=True)
    print(f"{file.name}: fetched into {output / file.into}")


def _unpack(file, path, folder, page):
    """Unpack an archive, or move another file, into a new folder, and check the content."""
    if not archives.is_archive(file.name):
        folder.mkdir()
        path.rename(folder / file.name)
        return
    try:
        archives.unpack(path, folder, file.root)
    except archives.ArchiveError as error:
        path.unlink()
        advice = f"it was deleted: run the same command again, or see {page}"
        raise ValueError(f"{error}; {advice}") from error
    for name in file.holds:
        if not (folder / name).exists():
            raise ValueError(
                f"{path}: {name} is not in this archive, which its owner may have changed: unpack "
                "it by hand"
            )


def _is_done(file, output):
    folder = output / file.into
    done = _read_state(file, output) == {"url": file.url, "state": "done"}
    return done and all((folder / name).exists() for name in file.holds)


def _read_state(file, output):
    """Return what an earlier run has noted about a file; {} if nothing."""
    try:
        return json.loads((output / STATE / f"{file.name}.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _write_state(file, output, state):
    text = json.dumps({"url": file.url, "state": state})
    files.write(output / STATE / f"{file.name}.json", text + "\n")


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_enum("set", None, list(SETS), "Data set to fetch.")
    flags.DEFINE_string("output", None, "Folder for the unpacked data set; created if missing.")
    flags.DEFINE_list("files", [], "Names of the files to fetch; default: all files of the set.")
    flags.DEFINE_bool("accept_licence", False, "Accept the licence that is shown, and fetch.")


def main() -> None:
    """Run the command.

    Raises:
        ValueError: a flag is missing, the set cannot be fetched, or see `fetch_set`.
        OSError: see `fetch_set`.
    """
    values = flags.FLAGS
    name, output = values["set"].value, values.output
    if not name:
        raise ValueError(f"--set is not given: the data set, one of {', '.join(SETS)}")
    data_set = SETS[name]
    print(describe(data_set, output or "OUTPUT"))
    if not data_set.files:
        raise ValueError(f"--set={name}: nothing was fetched, follow the steps above")
    if not values.accept_licence:
        raise ValueError(
            "--accept_licence is not given, nothing was fetched: read the licence above, then run "
            "the command again with --accept_licence"
        )
    if not output:
        raise ValueError("--output is not given: the folder for the unpacked data set")
    fetch_set(data_set, output, values["files"].value)
    source = shlex.quote(str(Path(output, data_set.source)))
    print(f"convert it: python -m {data_set.reader} --source {source} --output RECORDS")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
