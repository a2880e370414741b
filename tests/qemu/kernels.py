"""Kernels to boot: a vmlinuz, or what is in a Debian kernel package.

Packages are fetched from where the machine's own come from, with lists of packages of our own: its
sources need not have that release.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_DEPENDS = re.compile(r"^\s*Depends: (linux-image-[0-9]\S+)$", re.MULTILINE)


class KernelError(Exception):
    """There is no such kernel to boot. The message is one sentence that says why."""


def release(image: Path) -> str:
    """What the kernel in ``image`` calls itself (``uname -r``), from the name distributions give the file."""
    return image.name.removeprefix("vmlinuz-")


def find(name: str, cache: Path) -> Path:
    """Return the vmlinuz that ``name`` means; its modules are in ``lib/modules`` beside its ``boot``.

    ``name`` is a vmlinuz, a kernel package (``.deb``), or PACKAGE/RELEASE: a package of a release of
    Debian; the package that a meta-package (``linux-image-amd64``) stands for is taken. What has to be
    unpacked goes into ``cache`` and stays there, one package for each release. Raises KernelError.
    """
    path = Path(name)
    try:
        if path.suffix == ".deb":
            return _unpacked(path.name.partition("_")[0], path, cache)
        if path.is_file():
            return path.resolve()
        package, _, suite = name.partition("/")
        if not package.startswith("linux-image-") or not re.fullmatch(r"[a-z][a-z-]*", suite):
            raise KernelError(f"{name} is neither a file nor of the form linux-image-amd64/bookworm")
        return _packaged(package, suite, cache)
    except OSError as error:
        raise KernelError(f"the kernel {name} cannot be unpacked: {error}") from error


def _packaged(package: str, suite: str, cache: Path) -> Path:
    directory = cache / suite
    apt = _apt(suite, directory)
    up_to_date = not (directory / "lists").exists()
    if up_to_date:
        _update(apt, directory)
    try:
        return _fetched(package, apt, directory)
    except KernelError:  # since the lists were fetched the archive may have replaced the package
        if up_to_date:
            raise
    _update(apt, directory)
    return _fetched(package, apt, directory)


def _fetched(package: str, apt: list[str], directory: Path) -> Path:
    """Download and unpack a package, or the one it stands for, unless that was done before."""
    depends = _DEPENDS.search(_output(["apt-cache", *apt, "depends", package], directory))
    package = depends[1] if depends else package
    if (directory / package).exists():
        return _image(directory / package)
    _output(["apt-get", *apt, "-qq", "download", package], directory)
    archive = next(directory.glob(f"{package}_*.deb"), None)
    if archive is None:
        raise KernelError(f"apt downloaded nothing for {package}")
    try:
        return _unpacked(package, archive, directory)
    finally:
        archive.unlink()


def _archive(directory: Path) -> str:
    """Return the address of the archive with Debian's releases that this machine uses."""
    targets = ["apt-get", "indextargets", "--format=$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    addresses = [line for line in _output(targets, directory).split() if "security" not in line]
    if not addresses:
        raise KernelError("apt has no lists of Debian's packages here: run apt-get update, on Debian")
    return addresses[0]


def _apt(suite: str, directory: Path) -> list[str]:
    """Options with which apt knows that release of Debian and nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    sources = directory / "sources.list"
    sources.write_text(f"deb [arch=amd64 signed-by={_KEYRING}] {_archive(directory)} {suite} main\n")
    settings = {
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",  # who may not enter root's cache
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Dir::Cache": str(directory),
        "Dir::Etc::SourceList": str(sources),
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": str(directory / "lists"),
        "Dir::State::Status": "/dev/null",
    }
    return [f"--option={name}={value}" for name, value in settings.items()]


def _update(apt: list[str], directory: Path) -> None:
    """Fetch the lists of packages, all or none."""
    try:
        (directory / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        _output(["apt-get", *apt, "-qq", "--error-on=any", "update"], directory)
    except BaseException:
        shutil.rmtree(directory / "lists", ignore_errors=True)
        raise


def _unpacked(package: str, archive: Path, cache: Path) -> Path:
    directory = cache / package
    if not directory.exists():
        unpacking = cache / f"{package}.unpacking"
        shutil.rmtree(unpacking, ignore_errors=True)
        _output(["dpkg", "--extract", str(archive.resolve()), str(unpacking)], cache)
        # What the package's own scripts would do: virtme-ng asks which modules need which.
        _output(["depmod", "--basedir", str(unpacking), release(_image(unpacking))], cache)
        unpacking.rename(directory)
    return _image(directory)


def _image(directory: Path) -> Path:
    image = next(directory.glob("boot/vmlinuz-*"), None)
    if image is None:
        raise KernelError(f"there is no kernel in {directory.name}")
    return image


def _output(command: list[str], cache: Path) -> str:
    cache.mkdir(parents=True, exist_ok=True)
    try:
        return subprocess.run(command, check=True, cwd=cache, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise KernelError(f"unpacking a kernel needs {command[0]}, which is not installed") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[-1:] or [f"exit status {error.returncode}"]
        raise KernelError(f"{command[0]} failed: {reason[0]}") from error
