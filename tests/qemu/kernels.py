"""Kernels to boot: a vmlinuz, or what is in a Debian kernel package."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

_DEPENDS = re.compile(r"^\s*Depends: (linux-image-[0-9]\S+)$", re.MULTILINE)


class KernelError(Exception):
    """There is no such kernel to boot. The message is one sentence that says why."""


def release(image: Path) -> str:
    """What the kernel in ``image`` calls itself (``uname -r``), from the name distributions give the file."""
    return image.name.removeprefix("vmlinuz-")


def find(name: str, cache: Path) -> Path:
    """Return the vmlinuz that ``name`` means; its modules are in ``lib/modules`` beside its ``boot``.

    ``name`` is a vmlinuz, a kernel package (``.deb``), or the name of a package that apt can get; the
    package that a meta-package (``linux-image-amd64``) stands for is taken. What has to be unpacked
    goes into ``cache`` and stays there. Raises KernelError.
    """
    path = Path(name)
    try:
        if path.suffix == ".deb":
            return _unpacked(path.name.partition("_")[0], path, cache)
        return path.resolve() if path.is_file() else _packaged(name, cache)
    except OSError as error:
        raise KernelError(f"the kernel {name} cannot be unpacked: {error}") from error


def _packaged(name: str, cache: Path) -> Path:
    depends = _DEPENDS.search(_output(["apt-cache", "depends", name], cache))
    package = depends[1] if depends else name
    if (cache / package).exists():
        return _image(cache / package)
    _output(["apt-get", "-qq", "download", package], cache)
    archive = next(cache.glob(f"{package}_*.deb"), None)
    if archive is None:
        raise KernelError(f"apt downloaded nothing for {package}")
    try:
        return _unpacked(package, archive, cache)
    finally:
        archive.unlink()


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
