"""The web process: for now a health endpoint, which asks the gateway each time."""

import json
import socket
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from derms.errors import LinkError
from derms.link.local import call
from derms.link.messages import Condition, Inspect

HEALTH = "/health"
ASK_S = 2.0


class HealthServer(ThreadingHTTPServer):
    """Answers GET /health: 200 and the gateway's condition, 503 and why there is none."""

    daemon_threads = True

    def __init__(self, host: str, port: int, gateway: Path) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.gateway = gateway
        super().__init__((host, port), _Health)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        name = str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}{HEALTH}"


class _Health(BaseHTTPRequestHandler):
    server: HealthServer
    timeout = 10.0

    def do_GET(self) -> None:
        """Answer for the one page there is."""
        if self.path != HEALTH:
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"there is only {HEALTH}"})
            return
        try:
            found = call(self.server.gateway, Inspect(), Condition, within_s=ASK_S)
        except LinkError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"gateway": "away", "error": str(error)})
        else:
            self._answer(HTTPStatus.OK, {"gateway": "there", **asdict(found)})

    def _answer(self, status: HTTPStatus, content: dict[str, object]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nobody reads a log of those who ask for health."""
