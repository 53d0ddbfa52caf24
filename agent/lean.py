"""What keeps the agent small: an optional library of a library that nobody here uses is not imported along with it.

It runs beside a database on every host. Must never change what a library does for us: only what it would do if asked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast


@contextmanager
def without(library: str) -> Iterator[None]:
    """Within this, an import of `library` fails as if it were not installed; afterwards it works. One that is imported already stays."""
    if library in sys.modules:
        yield
        return
    sys.modules[library] = cast("ModuleType", None)  # how Python itself says: do not look for it
    try:
        yield
    finally:
        del sys.modules[library]
