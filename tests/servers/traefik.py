"""A real Traefik on loopback, for tests: an entry point `traefik` with /ping and the API, one called `web`, and a file provider.

with TraefikServer(binary, DYNAMIC) as traefik:
    traefik.start()
"""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from agent.demo.throwaway_postgres import free_port
from tests.polling import eventually
from tests.servers.one_process import OneProcess


class TraefikServer(OneProcess):
    """One instance in a folder of its own. `dynamic`: what its file provider serves, YAML. `arguments`: more of its command line."""

    def __init__(self, binary: Path, dynamic: str, *arguments: str, insecure_api: bool = True, ping: bool = True) -> None:
        super().__init__("traefik")
        self.port, self.web_port = free_port(), free_port()
        self.dynamic_file = self.directory / "dynamic.yaml"
        self.dynamic_file.write_text(dynamic, encoding="utf-8")
        self._command = [
            str(binary),
            f"--entrypoints.traefik.address=127.0.0.1:{self.port}",
            f"--entrypoints.web.address=127.0.0.1:{self.web_port}",
            f"--providers.file.filename={self.dynamic_file}",
            "--providers.providersthrottleduration=100ms",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            *(["--api.insecure=true"] if insecure_api else []),
            *(["--ping=true"] if ping else []),
            *arguments,
        ]
        self._has_api = insecure_api

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until its API answers (without one: until it answers anything at all)."""
        self.run(*self._command)
        eventually(self._answers, 30.0, what="Traefik answers")

    def change(self, dynamic: str) -> None:
        """Serve something else from now on."""
        self.dynamic_file.write_text(dynamic, encoding="utf-8")

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/api/overview", timeout=2):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return not self._has_api  # 404 until it has read its first configuration
        except OSError:
            return False
