from __future__ import annotations

import re

import pytest

from agent.web.page import ASSETS
from tests.unit.agent.web.face import Face, ask, serving


async def test_the_page_and_its_files() -> None:
    async with serving(Face()) as port:
        page = await ask(port, "/")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        linked = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
        assert sorted(linked) == ["/static/status.css", "/static/status.js"]
        for path in linked:
            assert (await ask(port, path)).status == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fserver.py", "%2e%2e/%2e%2e/errors.py", "status.html%00"])
async def test_no_other_file_is_given(name: str) -> None:
    async with serving(Face()) as port:
        assert (await ask(port, f"/static/{name}")).status == 404


@pytest.mark.parametrize("name", sorted(ASSETS))
async def test_it_needs_no_internet_and_makes_no_html_of_data(name: str) -> None:
    async with serving(Face()) as port:
        text = (await ask(port, f"/static/{name}")).body.decode()
    assert not re.search(r"https?://|innerHTML|insertAdjacentHTML|document\.write|eval\(|style=", text)
