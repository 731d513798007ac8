"""Tests of `data_prep.download`: from a local server to the folder that the reader wants."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from absl import flags

from data_prep import download, kitti
from data_prep.fetching import archives, http_files
from data_prep.fetching.sets import SETS
from tests.conftest import run_command
from tests.support.http_files import Served, serve
from tests.support.kitti_writer import write_kitti
from tests.support.local_sets import listing, local, zip_of, zipped


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waits between attempts, no proxy for the local server."""
    monkeypatch.setattr(http_files, "WAITS", (0, 0, 0, 0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def run(monkeypatch):
    """Function that runs the command in this process with other data sets."""

    def execute(sets, *arguments):
        before = set(flags.FLAGS)
        try:
            download.define_flags()
            flags.FLAGS([sys.argv[0], *map(str, arguments)])
            monkeypatch.setattr(download, "SETS", sets)
            download.main()
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)

    return execute


@pytest.fixture
def kitti_server(kitti_folder):
    bodies = {f"{s}.zip": zipped(kitti_folder / s) for s in ("data_scene_flow", "data_semantics")}
    with serve(**{name: Served(body) for name, body in bodies.items()}) as (address, served, asked):
        yield SimpleNamespace(
            set=local("kitti", address), flow=served["/data_scene_flow.zip"], requests=asked
        )


def test_kitti_is_fetched_unpacked_and_read(kitti_server, kitti_folder, run, tmp_path, capsys):
    output = tmp_path / "my KITTI"
    kitti_server.flow.breaks = [1000]
    run({"kitti": kitti_server.set}, "--set=kitti", f"--output={output}", "--accept_licence")
    printed = capsys.readouterr().out
    assert "CC BY-NC-SA 3.0" in printed and "Not for commercial use" in printed
    assert f"convert it: python -m {kitti.__name__} --source '{output}' --output" in printed
    assert listing(output) == listing(kitti_folder)
    for name in listing(kitti_folder):
        assert (output / name).read_bytes() == (kitti_folder / name).read_bytes()
    frames = kitti.find_frames([output])
    assert [frame.frame_id for frame in frames] == [f"{k:06d}_10" for k in range(5)]
    index = kitti.convert([output], tmp_path / "records", val_fraction=0)
    assert sum(index["files"][name]["records"] for name in index["files"]) == 5
    # Archives and partial files are gone; only notes are left.
    assert {path.suffix for path in (output / download.STATE).iterdir()} == {".json"}


def test_second_run_fetches_nothing(kitti_server, tmp_path, capsys):
    assert len(download.fetch_set(kitti_server.set, tmp_path)) == 2
    kitti_server.requests.clear()
    assert download.fetch_set(kitti_server.set, tmp_path) == []
    assert kitti_server.requests == []
    assert "data_semantics.zip: fetched earlier" in capsys.readouterr().out


def test_run_that_stopped_between_the_files_continues(kitti_server, tmp_path):
    kitti_server.flow.status = 404
    files = [file.name for file in kitti_server.set.files]
    download.fetch_set(kitti_server.set, tmp_path, files[1:])
    kitti_server.flow.status = 200
    kitti_server.requests.clear()
    download.fetch_set(kitti_server.set, tmp_path)
    assert [path for path, _ in kitti_server.requests] == ["/data_scene_flow.zip"]


def test_unpacked_folder_that_was_deleted_is_fetched_again(kitti_server, tmp_path):
    download.fetch_set(kitti_server.set, tmp_path)
    (tmp_path / "data_semantics").rename(tmp_path / "away")
    kitti_server.requests.clear()
    download.fetch_set(kitti_server.set, tmp_path)
    assert [path for path, _ in kitti_server.requests] == ["/data_semantics.zip"]


def test_run_that_stopped_while_moving_continues_without_fetching(
    kitti_server, kitti_folder, tmp_path, monkeypatch
):
    moved = []

    def replace(old, new):
        if len(moved) == 1:
            raise KeyboardInterrupt
        moved.append(new)
        real_replace(old, new)

    real_replace = archives.os.replace
    with monkeypatch.context() as stopped:
        stopped.setattr(archives, "os", SimpleNamespace(**vars(archives.os) | {"replace": replace}))
        (tmp_path / "data_scene_flow/training").mkdir(parents=True)
        with pytest.raises(KeyboardInterrupt):
            download.fetch_set(kitti_server.set, tmp_path)
    assert len(moved) == 1 and Path(moved[0]).exists()
    kitti_server.requests.clear()
    download.fetch_set(kitti_server.set, tmp_path)
    assert [path for path, _ in kitti_server.requests] == ["/data_semantics.zip"]
    assert listing(tmp_path) == listing(kitti_folder)


def test_existing_folder_is_refused_before_the_fetch(kitti_server, tmp_path):
    write_kitti(tmp_path, 1)
    before = listing(tmp_path)
    with pytest.raises(ValueError, match="image_2: exists, and was not fetched by this command"):
        download.fetch_set(kitti_server.set, tmp_path)
    assert kitti_server.requests == [] and listing(tmp_path) == before


def test_existing_file_is_not_replaced(kitti_server, tmp_path):
    mine = tmp_path / "data_scene_flow/training/obj_map/000000_10.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(ValueError, match="000000_10.png: exists with other content"):
        download.fetch_set(kitti_server.set, tmp_path)
    assert listing(tmp_path) == ["data_scene_flow/training/obj_map/000000_10.png"]
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    kitti_server.requests.clear()
    download.fetch_set(kitti_server.set, tmp_path, ["data_scene_flow.zip"])
    # The archive was kept.
    assert kitti_server.requests == []


def test_damaged_archive_is_deleted_and_fetched_again(kitti_server, tmp_path):
    body = kitti_server.flow.body
    kitti_server.flow.body = body[:-500]
    with pytest.raises(ValueError, match="the archive is damaged .* it was deleted: run the same"):
        download.fetch_set(kitti_server.set, tmp_path)
    assert listing(tmp_path) == []
    kitti_server.flow.body = body
    assert len(download.fetch_set(kitti_server.set, tmp_path)) == 2


def test_archive_with_other_content_is_refused(kitti_server, tmp_path):
    kitti_server.flow.body = zip_of({"readme.txt": b"moved"})
    with pytest.raises(ValueError, match="training/image_2 is not in this archive"):
        download.fetch_set(kitti_server.set, tmp_path)
    assert listing(tmp_path) == []


def test_archive_that_would_write_outside_is_refused(kitti_server, tmp_path):
    kitti_server.flow.body = zip_of({"../../out": b"1"})
    with pytest.raises(ValueError, match="'../../out' is outside the folder; it was deleted"):
        download.fetch_set(kitti_server.set, tmp_path / "a/b")
    assert not list(tmp_path.rglob("out"))


def test_disk_that_is_too_small_is_refused_before_the_fetch(kitti_server, tmp_path, monkeypatch):
    sizes = (5_000_000_000, 2_000_000_000)
    files = zip(kitti_server.set.files, sizes, strict=True)
    data_set = dataclasses.replace(
        kitti_server.set, files=tuple(dataclasses.replace(f, about=size) for f, size in files)
    )
    monkeypatch.setattr(
        http_files.shutil, "disk_usage", lambda _: SimpleNamespace(free=11_900_000_000)
    )
    # Both unpacked, and the larger archive.
    with pytest.raises(OSError, match="12 GB are needed and 11.9 GB are free"):
        download.fetch_set(data_set, tmp_path)
    assert kitti_server.requests == []


def test_two_commands_in_one_folder_are_refused(kitti_server, tmp_path):
    with download.files.lock(tmp_path, "busy"):
        with pytest.raises(ValueError, match="another download is using this folder"):
            download.fetch_set(kitti_server.set, tmp_path)


def test_without_the_licence_nothing_is_fetched(tmp_path):
    output = tmp_path / "out"
    done = run_command("data_prep.download", "--set=davis", "--output", output, ok=False)
    assert "--accept_licence is not given, nothing was fetched" in done.stderr
    for text in ("CC BY 4.0", "DAVIS-2017-trainval-480p.zip", "833 MB", "Name the authors"):
        assert text in done.stdout
    assert not output.exists()


def test_set_with_a_login_says_where_to_go(run, capsys):
    with pytest.raises(ValueError, match="--set=cityscapes: nothing was fetched, follow the steps"):
        run(SETS, "--set=cityscapes", "--output=CITY", "--accept_licence")
    printed = capsys.readouterr().out
    assert "create an account at https://www.cityscapes-dataset.com" in printed
    assert "unpack all into CITY, so that it holds leftImg8bit and gtFine" in printed


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--output=a"], "--set is not given: the data set, one of kitti,"),
        (["--set=kitti", "--accept_licence"], "--output is not given"),
        (
            ["--set=kitti", "--accept_licence", "--output={}", "--files=a.zip"],
            "files=a.zip: not a file of this set; its files are data_scene_flow.zip, data_sem",
        ),
    ],
)
def test_bad_flags(run, tmp_path, arguments, expected):
    with pytest.raises(ValueError, match=expected):
        run(SETS, *(argument.format(tmp_path / "out") for argument in arguments))
    assert not (tmp_path / "out").exists()
