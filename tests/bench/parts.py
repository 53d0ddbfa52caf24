"""The programs that the bench compares with, and how they come onto this machine. Only `make bench` gets them, never `make test`.

Patroni goes into an environment of its own in the cache, so that nothing of it meets quorate's. repmgr is Debian's package beside
Postgres 15; it needs root and its daemon is never started by Debian. A peer that cannot be had is left out by name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.bench.contenders import Product
from tests.install import needs
from tests.install.debian import install_package
from tests.install.parts import CannotObtain, Missing, Part, Say, cache_bin, run

PATRONI = "patroni[consul,psycopg3]>=4.1,<4.2"
FROM_THE_LAB = ("Postgres 15", "Consul", "nftables", "iproute2")
"""Parts that every contender's stage needs."""
POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")


def _patroni_venv() -> Path:
    return cache_bin().parent / "patroni-4.1"


def find_patroni() -> Path | None:
    """The program in its environment; None: not there, or it does not run."""
    program = _patroni_venv() / "bin" / "patroni"
    if not program.exists():
        return None
    done = subprocess.run([program, "--version"], check=False, capture_output=True, timeout=60)
    return program if done.returncode == 0 else None


def _obtain_patroni(_say: Say) -> None:
    shutil.rmtree(_patroni_venv(), ignore_errors=True)
    run(sys.executable, "-m", "venv", str(_patroni_venv()), timeout_s=120)
    python = str(_patroni_venv() / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", PATRONI, error_mark="ERROR")


def find_repmgr() -> Path | None:
    program = POSTGRES_BIN / "repmgrd"
    return program if program.exists() else None


PARTS: Mapping[Product, Part] = {
    Product.PATRONI: Part(
        name="Patroni 4.1",
        purpose="measure it beside quorate",
        how=f"let make bench install {PATRONI} from PyPI",
        find=find_patroni,
        obtain=_obtain_patroni,
        cost="installing it from PyPI into an environment of its own in the cache (about 10 s)",
    ),
    Product.REPMGR: Part(
        name="repmgr 5.3",
        purpose="measure repmgrd beside quorate",
        how="as root: apt-get install postgresql-15-repmgr",
        find=find_repmgr,
        obtain=lambda _: install_package("postgresql-15-repmgr"),
        cost="apt-get install postgresql-15-repmgr (about 10 s; nothing of it starts)",
    ),
}


def prepare(products: frozenset[Product], say: Say) -> dict[Product, Missing]:
    """Get what the stage and these products need; what could not be had, by product. CannotObtain when the stage itself lacks something."""
    os.environ.pop("PG_BIN", None)  # one Postgres for all: the one that repmgr is built for
    if lacking := needs.prepare(say, FROM_THE_LAB):
        raise CannotObtain("; ".join(f"{each.part.left_out}: {each.cause} ({each.part.how})" for each in lacking))
    if not (POSTGRES_BIN / "initdb").exists():
        raise CannotObtain(f"there is no Postgres 15 in {POSTGRES_BIN} (as root: apt-get install postgresql-15)")
    os.environ["PG_BIN"] = str(POSTGRES_BIN)
    missing = {product: needs._prepare(PARTS[product], say) for product in Product if product in products and product in PARTS}
    return {product: each for product, each in missing.items() if each is not None}


def version_of(command: list[str]) -> str:
    """The first version number in what a program says of itself."""
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    found = re.search(r"\d+\.\d+(\.\d+)?", said.stdout + said.stderr)
    return found.group() if found else "of unknown version"
