"""Fetches a file over HTTP: resumes, verifies, and never leaves half a file under its name."""

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from flowseg import __version__, console, files

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte
# Seconds before each further attempt after a broken connection. An attempt that brought bytes
# restarts the count.
WAITS = (1, 5, 15, 60)
# Answers of servers that are busy or restarting.
_TRY_AGAIN = {408, 429, 500, 502, 503, 504}


class _Broken(OSError):
    """The connection ended early, or the server is busy: another attempt may succeed."""


class _Unreachable(_Broken):
    """There is no connection to the server."""


def partial_path(path: Path) -> Path:
    """Return the name under which the bytes of an unfinished file are kept."""
    return path.with_name(f".partial-{path.name}")


def fetch(
    url: str,
    path: str | os.PathLike,
    size: int | None = None,
    checksum: str = "",
    page: str = "",
) -> Path:
    """Fetch a file, and continue a fetch that was interrupted.

    Unfinished bytes are kept under another name. They are continued by a range request with
    `If-Range` (RFC 9110, section 13.1.5): a server that has another version of the file by now
    sends all of it. A server without ranges also sends everything again.

    Args:
        url: address; http or https.
        path: file to write; its folder exists.
        size: exact number of bytes, if known.
        checksum: "md5:..." or "sha256:..." of the file, if known.
        page: address of the owner's page, for messages.

    Returns:
        `path` as a Path.

    Raises:
        OSError: no connection, an error of the server, or a full disk.
        ValueError: the server sent a web page, or a file of another size or checksum.
    """
    path = Path(path)
    advice = f"fetch it in a browser; the owner's page is {page}" if page else "check the address"
    failures, most = 0, _kept(path)
    while True:
        try:
            _attempt(url, path, size, advice)
            break
        except _Broken as error:
            if isinstance(error, _Unreachable) and not failures:
                raise OSError(f"{error}: check the network and run the command again") from error
            if _kept(path) > most:
                failures, most = 0, _kept(path)
            if failures == len(WAITS):
                raise OSError(f"{error}: run the same command again to continue") from error
            console.warn(f"{error}; trying again in {WAITS[failures]} s")
            time.sleep(WAITS[failures])
            failures += 1
    _verify(partial_path(path), url, size, checksum, advice)
    os.replace(partial_path(path), path)
    _facts_path(path).unlink(missing_ok=True)
    return path


def _attempt(url, path, size, advice):
    """Request the missing bytes once, and write what comes.

    Raises:
        _Broken: not all bytes came.
        OSError, ValueError: another attempt would not help.
    """
    partial, start = partial_path(path), 0
    headers = {"User-Agent": f"flowseg/{__version__}", "Accept-Encoding": "identity"}
    if validator := _validator(path, url):
        start = _kept(path)
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    with _open(url, headers, advice) as response:
        if response is None:
            # The range is not satisfiable: all bytes are there, or too many.
            if start and start == _read_facts(path).get("total"):
                return
            partial.unlink(missing_ok=True)
            raise _Broken(f"{url}: the server refuses to continue the file, which restarts")
        start, total = _position(response, start, url)
        first = _read(response, url)
        _check_response(response, first if not start else b"", url, total, size, advice)
        facts = {"url": url, "total": total}
        facts |= {k: response.headers.get(k) for k in ("ETag", "Last-Modified")}
        if start and not _is_same(facts, _read_facts(path)):
            partial.unlink()
            raise _Broken(f"{url}: the server has another version of the file, which restarts")
        if not start:
            partial.unlink(missing_ok=True)
            files.write(_facts_path(path), json.dumps(facts))
        if total:
            check_space(path.parent, total - start)
        _write(response, first, path, start, total, url)
    if total is not None and (kept := _kept(path)) < total:
        raise _Broken(f"{url}: the connection ended after {kept:,} of {total:,} bytes")


@contextlib.contextmanager
def _open(url, headers, advice) -> Iterator[http.client.HTTPResponse | None]:
    """Yield the response; None if the requested range is not satisfiable."""
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            yield None
            return
        reason = f"{url}: the server answers {error.code} ({error.reason})"
        if error.code in _TRY_AGAIN:
            raise _Broken(reason) from error
        if error.code in (401, 403):
            raise OSError(f"{reason}, it may need a login: {advice}") from error
        raise OSError(f"{reason}, the file may have moved: {advice}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _Unreachable(f"{url}: no connection ({reason})") from error
    with response:
        yield response


def _position(response, start, url):
    """Return (offset of the first byte of the response, size of the whole file or None)."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        if start:
            console.warn(f"{url}: the file is sent from its beginning again")
        return 0, int(length) if length and length.isdecimal() else None
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range") or "")
    if not span or int(span[1]) != start:
        raise OSError(f"{url}: the server sent other bytes than the requested ones, try later")
    return start, int(span[2])


def _check_response(response, first, url, total, size, advice):
    """Raise ValueError if the response, or its first bytes, are evidently not the file."""
    if response.headers.get_content_type() == "text/html" or first.lstrip()[:1] == b"<":
        raise ValueError(f"{url}: the server sent a web page, such as a login, no file: {advice}")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise ValueError(f"{url}: the server sent the file in the encoding {encoding}: {advice}")
    if size is not None and total is not None and total != size:
        raise ValueError(
            f"{url}: the server's file has {total:,} bytes instead of {size:,}; the owner may have "
            f"replaced it: {advice}"
        )


def _write(response, chunk, path, start, total, url):
    """Append the body of the response, of which `chunk` was read, to the partial file."""
    bar = tqdm(total=total, initial=start, desc=path.name, unit="B", unit_scale=True, disable=None)
    try:
        with bar, open(partial_path(path), "ab" if start else "wb") as file:
            while chunk:
                file.write(chunk)
                bar.update(len(chunk))
                chunk = _read(response, url)
            file.flush()
            os.fsync(file.fileno())
    except KeyboardInterrupt as error:
        kept = f"{_kept(path):,} bytes of {path.name} are kept"
        raise KeyboardInterrupt(f"{kept}; the same command continues") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(path) from error
        raise


def _read(response, url):
    """Read a chunk; b"" at the end of the body."""
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"{url}: the connection broke off ({error})") from error


def _verify(partial, url, size, checksum, advice):
    """Raise ValueError, and delete the partial file, if its size or checksum is wrong."""
    deleted = f"the file was deleted: run the same command again; if the error persists, {advice}"
    if size is not None and (kept := partial.stat().st_size) != size:
        partial.unlink()
        raise ValueError(f"{url}: {kept:,} bytes came instead of {size:,}; {deleted}")
    if not checksum:
        return
    algorithm, _, expected = checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    total = partial.stat().st_size
    with (
        open(partial, "rb") as file,
        tqdm(total=total, desc=algorithm, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != expected:
        partial.unlink()
        raise ValueError(
            f"{url}: its {algorithm} is {digest.hexdigest()} instead of {expected}; {deleted}"
        )


def check_space(folder: Path, needed: int) -> None:
    """Raise OSError if fewer bytes than `needed` are free on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: {gigabytes(needed)} are needed and {gigabytes(free)} are free: "
            "free some space, or choose a folder on another disk"
        )


def gigabytes(size: int) -> str:
    """Return a number of bytes for people, with three digits: 1.68 GB, 24.5 MB, 300 kB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            number = size / factor
            digits = f"{number:.{(number < 10) + (number < 100)}f}"
            return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} {unit}"
    return f"{size} bytes"


def _full(path):
    advice = "no space left on the disk: free some space and run the same command again to continue"
    return OSError(errno.ENOSPC, advice, str(path))


def _kept(path):
    try:
        return partial_path(path).stat().st_size
    except FileNotFoundError:
        return 0


def _facts_path(path):
    """The file that says of which version of the address the partial file is."""
    return path.with_name(f".partial-{path.name}.json")


def _read_facts(path):
    try:
        facts = json.loads(_facts_path(path).read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_same(new, old):
    """Whether a continued answer is of the same version, also of a server that ignores If-Range."""
    return all(old.get(key) in (None, value) for key, value in new.items() if value is not None)


def _validator(path, url):
    """Return the value of If-Range that allows to continue the partial file; None: restart."""
    facts = _read_facts(path)
    if not _kept(path) or facts.get("url") != url:
        return None
    etag = facts.get("ETag") or ""
    # A weak ETag does not promise the same bytes.
    return etag if etag.startswith('"') else facts.get("Last-Modified")
