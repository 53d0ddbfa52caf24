"""agent/README.md shows the rule table as it is. `python -m tests.tidy.test_picture agent/README.md` draws it anew."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.decision.picture import redraw
from tests.tidy import code

PAGE = "agent/README.md"


def test_the_page_shows_the_table_as_it_is() -> None:
    page = code.existing_text(PAGE)
    assert page == redraw(page), f"{PAGE} is out of date: python -m tests.tidy.test_picture {PAGE}"


def main(path: Path) -> None:
    """Write the current picture into the file."""
    path.write_text(redraw(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
