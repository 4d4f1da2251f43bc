"""Downloads the public BloodMNIST, resumably and with a checksum.

Neither ``keras.utils.get_file`` nor pooch resumes: both start a broken transfer anew, which costs up to 1.5 GB for the
images of 224 px. Both also import or install more than the standard library's HTTP client, which is all this needs.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bloodauto.errors import DataError

#: The record of MedMNIST+ (Yang et al., 2023, doi:10.1038/s41597-022-01721-8; all sizes: doi:10.5281/zenodo.10519652).
MEDMNIST_URL = "https://zenodo.org/records/10519652/files"
_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class _PublicFile:
    """A file of MedMNIST+.

    Attributes:
        file_name: on the server and on disk.
        md5: 32 hexadecimal digits.
    """

    file_name: str
    md5: str


# File names and checksums as the medmnist package lists them (medmnist/info.py, version 3). MD5 is what Zenodo publishes:
# it detects damage, and forgery only as far as MD5 can.
_PUBLIC_FILES = {
    ("bloodmnist", 28): _PublicFile("bloodmnist.npz", "7053d0359d879ad8a5505303e11de1dc"),
    ("bloodmnist", 64): _PublicFile("bloodmnist_64.npz", "2b94928a2ae4916078ca51e05b6b800b"),
    ("bloodmnist", 128): _PublicFile("bloodmnist_128.npz", "adace1e0ed228fccda1f39692059dd4c"),
    ("bloodmnist", 224): _PublicFile("bloodmnist_224.npz", "b718ff6835fcbdb22ba9eacccd7b2601"),
}


def fetch_medmnist(
    name: str,
    size: int,
    folder: Path,
    *,
    base_url: str = MEDMNIST_URL,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Downloads one MedMNIST file, unless it exists and its checksum is right.

    The partial file of an interrupted download (``<file>.partial``) is continued with an HTTP range request; where the
    server does not support them, the download starts anew.

    Args:
        name: ``bloodmnist``.
        size: side of the images in pixels: 28, 64, 128 or 224.
        folder: where the file is written; created if it is absent.
        base_url: the folder of the files on the server.
        progress: called with the bytes on disk and the bytes expected (None if the server does not state a length).

    Returns:
        The path of the file, whose MD5 sum has been checked.

    Raises:
        DataError: an unknown name or size, no connection, a server's refusal, an interrupted transfer (run again to
            continue), or a wrong checksum (the file is removed).
    """
    public = _PUBLIC_FILES.get((name, size))
    if public is None:
        known = ", ".join(f"{known_name} {known_size}" for known_name, known_size in _PUBLIC_FILES)
        raise DataError(f"expected one of {known} px, got {name} {size}.")
    return fetch(f"{base_url.rstrip('/')}/{public.file_name}", public.md5, folder / public.file_name, progress)


def fetch(url: str, md5: str, target: Path, progress: Callable[[int, int | None], None] | None = None) -> Path:
    """Downloads one file, unless it exists and its checksum is right.

    Args:
        url: of the file, http or https.
        md5: 32 hexadecimal digits.
        target: where to write it.
        progress: see ``fetch_medmnist``.

    Returns:
        ``target``, whose MD5 sum has been checked.

    Raises:
        DataError: see ``fetch_medmnist``; also an existing ``target`` with another checksum, which is left alone.
    """
    by_hand = f"Or download {url} by hand (e.g. on another machine) to {target}"
    if target.exists():
        actual = _md5(target)
        if actual == md5:
            return target
        raise DataError(
            f"{target}: expected a file with MD5 {md5}, got {actual}: damaged, or another file of that name. "
            f"Move it away and run again."
        )
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _transfer(url, partial, progress)
    except urllib.error.HTTPError as error:
        raise DataError(
            f"{url}: expected a file, the server answered {error.code} {error.reason}. {by_hand}."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        size = partial.stat().st_size if partial.exists() else 0
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(
            f"{url}: the download broke off ({reason}); {size:,} bytes are kept. Check the network and run again to "
            f"continue. {by_hand}."
        ) from error
    actual = _md5(partial)
    if actual != md5:
        size = partial.stat().st_size
        partial.unlink()
        raise DataError(
            f"{url}: expected a file with MD5 {md5}, got {size:,} bytes with {actual}; they were removed. Run again; if "
            f"that does not help, the server or something in between sends another file. {by_hand}."
        )
    partial.replace(target)
    return target


def _transfer(url: str, partial: Path, progress: Callable[[int, int | None], None] | None) -> None:
    """Reads ``url`` into ``partial``, continuing it where possible; raises OSError when the connection breaks."""
    size = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "bloodauto", "Accept-Encoding": "identity"})
    if size:
        request.add_header("Range", f"bytes={size}-")
    try:
        # An opener of its own: the shared one keeps whatever proxies were set when it was first used.
        response = urllib.request.build_opener().open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and size:
            # Nothing lies beyond the partial file: it is whole (the checksum will tell), or of an older, longer file.
            error.close()
            return
        raise
    with response:
        continues = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {size}-")
        if size and response.status == 206 and not continues:
            raise OSError(f"requested bytes from {size}, got {response.headers.get('Content-Range')!r}")
        if not continues:
            size = 0
        length = response.headers.get("Content-Length")
        expected = size + int(length) if length is not None else None
        with partial.open("ab" if continues else "wb") as stream:
            while chunk := response.read(_CHUNK_BYTES):
                stream.write(chunk)
                size += len(chunk)
                if progress is not None:
                    progress(size, expected)
    # http.client ends a read(amount) that comes up short without an error.
    if expected is not None and size < expected:
        raise OSError(f"{size:,} of {expected:,} bytes came")


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
