"""Fetch Fashion-MNIST (Xiao et al. 2017, MIT licence) from the first source that has it, and verify its content.

The checksums are those of the decompressed bytes, because compressed files differ between sources: Debian strips
the gzip headers.
"""

import gzip
import hashlib
import subprocess
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path

from decaymerge.atomic import atomic_file
from decaymerge.errors import UserError

SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
UPSTREAM = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
TIMEOUT_SECONDS = 60
LEAST_BYTES = 20_000
"""Bytes that must arrive in this time."""


class UnavailableError(Exception):
    """A source does not have the data; the text gives the reason."""


def content_sha256(path: Path) -> str:
    """SHA-256 of the decompressed bytes, as hexadecimal digits.

    Raises:
        OSError, EOFError, zlib.error: the file cannot be decompressed.
    """
    with gzip.open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_folder(folder: Path) -> dict[str, bytes]:
    """Bytes of the four compressed files of a folder, by name, after each was verified.

    Raises:
        UnavailableError: a file is missing, damaged, or another one than its name says.
    """
    for name, expected in SHA256.items():
        path = folder / name
        if not path.is_file():
            raise UnavailableError(f"{path} does not exist")
        try:
            digest = content_sha256(path)
        except (OSError, EOFError, zlib.error) as error:
            raise UnavailableError(f"{path} is damaged ({error})") from None
        if digest != expected:
            raise UnavailableError(f"{path} has sha256 {digest} decompressed, not {expected}")
    return {name: (folder / name).read_bytes() for name in SHA256}


def from_debian() -> dict[str, bytes]:
    """Bytes of the four compressed files from the Debian package, which is downloaded and unpacked without root.

    If the system has no package lists, they are first fetched into a temporary folder.

    Raises:
        UnavailableError: the package cannot be downloaded, or does not hold the four files.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lists = [
            f"-oDir::State::Lists={scratch}/lists",
            f"-oDir::Cache={scratch}/cache",
            "-oDebug::NoLocking=1",
        ]
        (Path(scratch) / "lists/partial").mkdir(parents=True)
        (Path(scratch) / "cache/archives/partial").mkdir(parents=True)
        download = ["download", DEBIAN_PACKAGE]
        try:
            if _run(["apt-get", *download], scratch).returncode:
                _run(["apt-get", *lists, "update"], scratch, check=True)
                _run(["apt-get", *lists, *download], scratch, check=True)
            (package,) = Path(scratch).glob("*.deb")
            _run(["dpkg-deb", "-x", str(package), f"{scratch}/unpacked"], scratch, check=True)
        except subprocess.CalledProcessError as error:
            raise UnavailableError(f"{error.cmd[0]}: {error.stderr.strip().splitlines()[-1:]}") from None
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            raise UnavailableError(str(error)) from None
        return from_folder(Path(scratch) / "unpacked" / DEBIAN_FOLDER.relative_to("/"))


def _run(command: list[str], folder: str, *, check: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, check=check, capture_output=True, text=True, timeout=300)


def from_upstream() -> dict[str, bytes]:
    """Bytes of the four compressed files from the authors' address.

    Raises:
        UnavailableError: the address does not answer, or does not send the four files.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name in SHA256:
            try:
                with urllib.request.urlopen(UPSTREAM + name, timeout=TIMEOUT_SECONDS) as response:
                    (Path(scratch) / name).write_bytes(_steadily(response))
            except OSError as error:
                raise UnavailableError(f"{UPSTREAM}{name}: {error}") from None
        return from_folder(Path(scratch))


def _steadily(response: HTTPResponse) -> bytes:
    """The content of a response, if its bytes arrive without long pauses.

    Raises:
        TimeoutError: less than ``LEAST_BYTES`` arrived in ``TIMEOUT_SECONDS``.
    """
    content = bytearray()
    since, size = time.monotonic(), 0
    while part := response.read1(1 << 16):
        content += part
        if len(content) >= size + LEAST_BYTES:
            since, size = time.monotonic(), len(content)
        elif time.monotonic() - since > TIMEOUT_SECONDS:
            raise TimeoutError(f"less than {LEAST_BYTES // 1000} kB in {TIMEOUT_SECONDS} s")
    return bytes(content)


def fetch(destination: Path, folder: Path | None) -> str:
    """Put the four files into ``destination`` and return the name of their source.

    Each file is written under another name and then moved into place.

    Args:
        destination: Folder for the files.
        folder: Folder that is tried before all other sources, or none.

    Raises:
        UserError: no source has the files; the message gives the reason for each source.
    """
    sources: dict[str, Callable[[], dict[str, bytes]]] = {
        f"Debian location {DEBIAN_FOLDER}": lambda: from_folder(DEBIAN_FOLDER),
        f"Debian package {DEBIAN_PACKAGE}": from_debian,
        "upstream address": from_upstream,
    }
    if folder is not None:
        sources = {f"fetch.fashion_mnist: {folder}": lambda: from_folder(folder), **sources}
    reasons = []
    for source, get_files in sources.items():
        try:
            files = get_files()
        except UnavailableError as reason:
            reasons.append(f"{source}: {reason}")
            continue
        for name, content in files.items():
            with atomic_file(destination / name, ours=True) as temporary:
                temporary.write_bytes(content)
        return source
    raise UserError(
        "cannot get Fashion-MNIST; set fetch.fashion_mnist to a folder with its four files, or install the Debian"
        f" package {DEBIAN_PACKAGE}, or connect to the internet. Tried: " + "; ".join(reasons)
    )
