"""Fashion-MNIST (Xiao et al. 2017, MIT licence) from the first source that has it, checked by content.

Debian strips the gzip headers, so compressed files differ between sources: the checksums are those of the
decompressed bytes.
"""

import gzip
import hashlib
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
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


class UnavailableError(Exception):
    """A source does not have the data; the text says why."""


def content_sha256(path: Path) -> str:
    """Checksum of the decompressed bytes."""
    with gzip.open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_folder(folder: Path) -> dict[str, bytes]:
    """The four files of a folder, compressed, each verified."""
    for name, expected in SHA256.items():
        path = folder / name
        if not path.is_file():
            raise UnavailableError(f"{path} does not exist")
        try:
            found = content_sha256(path)
        except (OSError, EOFError, zlib.error) as error:
            raise UnavailableError(f"{path} is damaged ({error})") from None
        if found != expected:
            raise UnavailableError(f"{path} has sha256 {found} decompressed, not {expected}")
    return {name: (folder / name).read_bytes() for name in SHA256}


def from_debian() -> dict[str, bytes]:
    """The Debian package, downloaded and unpacked without root.

    Where the system's package lists are missing, they are fetched into a temporary folder first.
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
    """The authors' own address."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in SHA256:
            try:
                with urllib.request.urlopen(UPSTREAM + name, timeout=TIMEOUT_SECONDS) as response:
                    (Path(scratch) / name).write_bytes(response.read())
            except OSError as error:
                raise UnavailableError(f"{UPSTREAM}{name}: {error}") from None
        return from_folder(Path(scratch))


def fetch(destination: Path, folder: Path | None) -> str:
    """Put the four files into ``destination``, each moved into place whole, and return their source.

    Raises:
        UserError: no source has them; the message goes through all three.
    """
    sources: dict[str, Callable[[], dict[str, bytes]]] = {
        f"Debian location {DEBIAN_FOLDER}": lambda: from_folder(DEBIAN_FOLDER),
        f"Debian package {DEBIAN_PACKAGE}": from_debian,
        "upstream address": from_upstream,
    }
    if folder is not None:
        sources = {f"fetch.fashion_mnist: {folder}": lambda: from_folder(folder), **sources}
    reasons = []
    for source, take in sources.items():
        try:
            files = take()
        except UnavailableError as reason:
            reasons.append(f"{source}: {reason}")
            continue
        for name, content in files.items():
            with atomic_file(destination / name) as temporary:
                temporary.write_bytes(content)
        return source
    raise UserError(
        "Fashion-MNIST is not to be had; set fetch.fashion_mnist to a folder with its four files, or install"
        f" the Debian package {DEBIAN_PACKAGE}, or connect to the internet. Tried: " + "; ".join(reasons)
    )
