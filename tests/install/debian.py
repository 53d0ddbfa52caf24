"""Parts out of Debian's packages: one program unpacked into the cache (no root, nothing installed), or a whole package installed (root).

Works where apt-get update was never run. A package's service never starts by itself. Only the standard library.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.install.parts import CannotObtain, put_into_cache, run

POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian asks this program before a package's service starts; 101 = no."""
QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


def unpack_program(package: str, member: str) -> None:
    """Take one program out of a Debian package into the cache. Needs neither root nor the machine's own package lists."""
    _require_apt()
    with tempfile.TemporaryDirectory(prefix="q-apt-") as name:
        folder = Path(name)
        for below in ("lists/partial", "cache/archives/partial"):
            (folder / below).mkdir(parents=True)
        options = [
            f"-oDir::State::Lists={folder}/lists",
            f"-oDir::Cache={folder}/cache",
            "-oDir::State::status=/var/lib/dpkg/status",
            "-oAPT::Sandbox::User=",
            "-oAPT::Update::Post-Invoke=",
            "-oDPkg::Post-Invoke=",
        ]
        run("apt-get", *options, "-q", "update", folder=folder, environment=QUIET)
        run("apt-get", *options, "-q", "download", package, folder=folder, environment=QUIET)
        archive = next(folder.glob(f"{package}_*.deb"))
        run("dpkg-deb", "--extract", str(archive), str(folder / "tree"), folder=folder)
        put_into_cache(folder / "tree" / member)


def install_package(package: str) -> None:
    """apt-get install, as root, without its service starting; package lists are fetched if they do not know it."""
    _require_apt()
    if os.geteuid() != 0:
        raise CannotObtain(f"apt-get install {package} needs root")
    with _no_service_starts():
        try:
            run("apt-get", "-q", "-y", "--no-install-recommends", "install", package, environment=QUIET)
        except CannotObtain:
            run("apt-get", "-q", "update", environment=QUIET)
            run("apt-get", "-q", "-y", "--no-install-recommends", "install", package, environment=QUIET)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    if POLICY.exists():  # the machine has a policy of its own; it stands
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def _require_apt() -> None:
    if shutil.which("apt-get") is None:
        raise CannotObtain("this machine has no apt-get")
