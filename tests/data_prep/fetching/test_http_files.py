"""Tests of fetching a file from a local server: resumed, verified, and never half a file."""

import errno
import hashlib
import os
from types import SimpleNamespace

import pytest

from data_prep.fetching import http_files
from tests.support.http_files import Served, serve

BODY = os.urandom(300_000)
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waits between attempts, small chunks, no proxy for the local server."""
    monkeypatch.setattr(http_files, "WAITS", (0, 0, 0, 0))
    monkeypatch.setattr(http_files, "CHUNK", 10_000)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with serve(file=Served(BODY)) as (address, served, requests):
        yield SimpleNamespace(url=f"{address}/file", file=served["/file"], requests=requests)


def ranges(server):
    return [headers.get("Range") for _, headers in server.requests]


def break_off(server, path, after):
    """Fetch until the server has broken off all attempts, the first after `after` bytes."""
    server.file.breaks = [after, 0, 0, 0, 0]
    with pytest.raises(OSError, match="the connection ended after"):
        http_files.fetch(server.url, path)
    assert server.file.breaks == [] and not path.exists()
    assert http_files.partial_path(path).read_bytes() == BODY[:after]
    server.requests.clear()


def test_file_is_fetched_and_verified(server, tmp_path):
    path = http_files.fetch(server.url, tmp_path / "a.zip", len(BODY), SHA256)
    assert path.read_bytes() == BODY
    assert sorted(tmp_path.iterdir()) == [path]
    ((_, headers),) = server.requests
    assert headers["User-Agent"].startswith("flowseg/") and "Range" not in headers


def test_broken_connection_is_continued_within_a_run(server, tmp_path, capsys):
    server.file.breaks = [120_000, 50_000]
    path = http_files.fetch(server.url, tmp_path / "a.zip", len(BODY), SHA256)
    assert path.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=120000-", "bytes=170000-"]
    assert server.requests[1][1]["If-Range"] == '"one"'
    assert "the connection ended after 120,000 of 300,000 bytes" in capsys.readouterr().err


def test_progress_between_breaks_restarts_the_attempts(server, tmp_path):
    server.file.breaks = [10_000] * 20
    assert http_files.fetch(server.url, tmp_path / "a.zip").read_bytes() == BODY
    assert len(server.requests) == 21


def test_second_run_continues(server, tmp_path):
    path = tmp_path / "a.zip"
    break_off(server, path, 123_456)
    assert http_files.fetch(server.url, path, checksum=SHA256).read_bytes() == BODY
    assert ranges(server) == ["bytes=123456-"]
    assert sorted(tmp_path.iterdir()) == [path]


def test_second_run_continues_by_the_date_if_the_etag_is_weak(server, tmp_path):
    path = tmp_path / "a.zip"
    server.file.etag, server.file.modified = 'W/"one"', "Wed, 21 Oct 2015 07:28:00 GMT"
    break_off(server, path, 1000)
    assert http_files.fetch(server.url, path).read_bytes() == BODY
    assert server.requests[0][1]["If-Range"] == "Wed, 21 Oct 2015 07:28:00 GMT"


def test_file_that_changed_between_the_runs_restarts(server, tmp_path):
    path = tmp_path / "a.zip"
    break_off(server, path, 123_456)
    server.file.body, server.file.etag = BODY[::-1], '"two"'
    assert http_files.fetch(server.url, path).read_bytes() == BODY[::-1]
    assert ranges(server) == ["bytes=123456-"]


def test_version_of_a_server_that_ignores_if_range_is_compared(server, tmp_path, capsys):
    path = tmp_path / "a.zip"
    break_off(server, path, 123_456)
    server.file.body, server.file.etag, server.file.careless = BODY[::-1], '"two"', True
    assert http_files.fetch(server.url, path).read_bytes() == BODY[::-1]
    assert ranges(server) == ["bytes=123456-", None]
    assert "another version of the file" in capsys.readouterr().err


def test_other_address_restarts(server, tmp_path):
    path = tmp_path / "a.zip"
    break_off(server, path, 1000)
    with serve(other=Served(BODY[::-1])) as (address, _, requests):
        assert http_files.fetch(f"{address}/other", path).read_bytes() == BODY[::-1]
    assert "Range" not in requests[0][1]


def test_without_etag_and_date_the_file_restarts(server, tmp_path):
    path = tmp_path / "a.zip"
    server.file.etag = ""
    server.file.breaks = [100_000]
    assert http_files.fetch(server.url, path).read_bytes() == BODY
    assert ranges(server) == [None, None]


def test_server_without_ranges_sends_everything_again(server, tmp_path, capsys):
    path = tmp_path / "a.zip"
    server.file.ranges = False
    server.file.breaks = [200_000]
    assert http_files.fetch(server.url, path, len(BODY), SHA256).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=200000-"]
    assert "sent from its beginning again" in capsys.readouterr().err


def test_complete_file_that_was_not_renamed_is_not_fetched_again(server, tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    with monkeypatch.context() as stopped:
        stopped.setattr(http_files, "_verify", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            http_files.fetch(server.url, path)
    assert http_files.partial_path(path).stat().st_size == len(BODY)
    server.requests.clear()
    assert http_files.fetch(server.url, path, checksum=SHA256).read_bytes() == BODY
    assert ranges(server) == ["bytes=300000-"]


@pytest.mark.parametrize(
    "status, expected",
    [
        (404, "answers 404 .*may have moved: fetch it in a browser; the owner's page is PAGE"),
        (403, "answers 403 .*may need a login: fetch it in a browser"),
        (503, "answers 503 .*run the same command again"),
    ],
)
def test_refused_request(server, tmp_path, status, expected):
    server.file.status = status
    with pytest.raises(OSError, match=expected):
        http_files.fetch(server.url, tmp_path / "a.zip", page="PAGE")
    assert not list(tmp_path.iterdir())
    assert len(server.requests) == (5 if status == 503 else 1)


def test_no_server(tmp_path):
    with serve() as (address, _, _):
        pass
    with pytest.raises(OSError, match="no connection .*refused.*check the network"):
        http_files.fetch(f"{address}/file", tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_login_page_in_place_of_an_archive(server, tmp_path, kind):
    server.file.body, server.file.kind = b"\n<!DOCTYPE html><title>Log in</title>", kind
    with pytest.raises(ValueError, match="web page, such as a login, no file: .*page is PAGE"):
        http_files.fetch(server.url, tmp_path / "a.zip", page="PAGE")
    assert not (tmp_path / "a.zip").exists()
    # The next run does not continue the page.
    server.file.body, server.file.kind = BODY, "application/zip"
    assert http_files.fetch(server.url, tmp_path / "a.zip").read_bytes() == BODY


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream"])
def test_login_page_in_place_of_the_rest_loses_nothing(server, tmp_path, kind):
    path = tmp_path / "a.zip"
    break_off(server, path, 123_456)
    server.file.body, server.file.kind, server.file.etag = b"<html>" * 1000, kind, ""
    with pytest.raises(ValueError, match="web page"):
        http_files.fetch(server.url, path)
    assert http_files.partial_path(path).read_bytes() == BODY[:123_456]
    server.file.body, server.file.kind, server.file.etag = BODY, "application/zip", '"one"'
    assert http_files.fetch(server.url, path).read_bytes() == BODY
    assert ranges(server)[-1] == "bytes=123456-"


def test_content_length_over_the_body_ends(server, tmp_path):
    server.file.length = len(BODY) + 5000
    with pytest.raises(OSError, match="run the same command again to continue"):
        http_files.fetch(server.url, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_content_length_under_the_size_is_an_error(server, tmp_path):
    server.file.length = len(BODY) - 5000
    with pytest.raises(ValueError, match="has 295,000 bytes instead of 300,000"):
        http_files.fetch(server.url, tmp_path / "a.zip", len(BODY))
    assert not list(tmp_path.iterdir())


def test_body_without_length_is_compared_with_the_size(server, tmp_path):
    server.file.length = ""
    server.file.breaks = [100_000]
    with pytest.raises(ValueError, match="100,000 bytes came instead of 300,000; the file was del"):
        http_files.fetch(server.url, tmp_path / "a.zip", len(BODY))
    assert not (tmp_path / "a.zip").exists()
    assert http_files.fetch(server.url, tmp_path / "a.zip", len(BODY)).read_bytes() == BODY


def test_wrong_checksum_deletes_the_file(server, tmp_path):
    path = tmp_path / "a.zip"
    with pytest.raises(ValueError, match=f"its md5 is .* instead of {'0' * 32}; .*was deleted"):
        http_files.fetch(server.url, path, checksum=f"md5:{'0' * 32}")
    assert not path.exists() and not http_files.partial_path(path).exists()


def test_encoded_body_is_refused(server, tmp_path):
    server.file.headers["Content-Encoding"] = "gzip"
    with pytest.raises(ValueError, match="in the encoding gzip"):
        http_files.fetch(server.url, tmp_path / "a.zip")


def test_other_range_than_requested_is_not_appended(server, tmp_path):
    path = tmp_path / "a.zip"
    break_off(server, path, 1000)
    server.file.headers["Content-Range"] = "bytes 5-9/300000"
    with pytest.raises(OSError, match="other bytes than the requested"):
        http_files.fetch(server.url, path)
    assert http_files.partial_path(path).read_bytes() == BODY[:1000]


def test_full_disk_keeps_the_bytes_for_the_next_run(server, tmp_path, monkeypatch):
    path, real_open = tmp_path / "a.zip", open

    class FullAfter:
        """A file whose disk is full after 50,000 bytes."""

        def __init__(self, *args):
            self.file = real_open(*args)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def tell(self):
            return self.file.tell()

        def write(self, chunk):
            if self.file.tell() >= 50_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.file.write(chunk)

    with monkeypatch.context() as full:
        full.setattr(http_files, "open", FullAfter, raising=False)
        with pytest.raises(OSError, match="free some space and run the same command") as raised:
            http_files.fetch(server.url, path)
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(path)
    assert http_files.partial_path(path).read_bytes() == BODY[:50_000]
    server.requests.clear()
    assert http_files.fetch(server.url, path).read_bytes() == BODY
    assert ranges(server) == ["bytes=50000-"]


def test_free_space_is_checked_before_the_first_byte(server, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=290_000)
    monkeypatch.setattr(http_files.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="300 kB are needed and 290 kB are free"):
        http_files.fetch(server.url, tmp_path / "a.zip")
    assert not http_files.partial_path(tmp_path / "a.zip").exists()


def test_interrupted_run_says_that_the_bytes_are_kept(server, tmp_path, monkeypatch):
    chunks = iter([BODY[:10_000]])

    def read(response, url):
        if chunk := next(chunks, None):
            return chunk
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(http_files, "_read", read)
        with pytest.raises(KeyboardInterrupt, match="10,000 bytes of a.zip are kept; the same"):
            http_files.fetch(server.url, tmp_path / "a.zip")
    assert http_files.fetch(server.url, tmp_path / "a.zip").read_bytes() == BODY


@pytest.mark.parametrize(
    "size, expected",
    [(7, "7 bytes"), (300_000, "300 kB"), (24_451_078, "24.5 MB"), (1_900_000_000, "1.9 GB")],
)
def test_sizes_for_people(size, expected):
    assert http_files.gigabytes(size) == expected
