"""A real HTTP server: points, entity tags, tokens and certificates, and every way in which a server can fail."""

import asyncio
import json
import math
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from derms.domain.scada import PointKind, ScadaPoint
from derms.errors import ScadaError
from derms.scada import rest
from derms.scada.rest import Access, RestOutlet, RestScada
from tests.scada.rig import Room, publication_of, room

LOAD = ScadaPoint(id="load", kind=PointKind.NET_LOAD, element="system", where="/load", scale=1e3)


@dataclass
class Server:
    """What the server answers, and what it was asked."""

    url: str = ""
    body: bytes = b'{"load": {"value": 2500, "quality": "good"}}'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False
    hang: threading.Event | None = None
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.asked.append((self.command, self.path, dict(self.headers.items()), body))
            if server.hang is not None:
                server.hang.wait(10.0)
            same = server.headers.get("ETag", "-") == self.headers.get("If-None-Match")
            self.send_response(304 if same else server.status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            content = b"" if same else server.body
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Nobody reads it."""

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    said = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(said)) as http:
        said.url = f"http://127.0.0.1:{http.server_port}/points"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield said
        http.shutdown()
        thread.join()


def asking(server: Server, *, timeout_s: float = 5.0, token: str = "", ca: Path | None = None) -> Room:
    access = Access(url=server.url, timeout_s=timeout_s, token=token, ca=ca)
    return room(RestScada(access, [LOAD]), [LOAD])


def test_points_come_with_the_token_in_their_own_request_and_nowhere_else(server: Server) -> None:
    told = asking(server, token="s3cret")
    assert told.poll().net_load_w == 2.5e6
    ((method, path, headers, _),) = server.asked
    assert (method, path, headers["Authorization"]) == ("GET", "/points", "Bearer s3cret")


def test_an_unchanged_document_is_confirmed_by_its_tag_and_stays_good(server: Server) -> None:
    server.headers = {"ETag": '"a1"'}
    told = asking(server)
    told.poll()
    for _ in range(10):
        assert told.poll(after_s=30.0).net_load_w == 2.5e6
    server.headers, server.body = {"ETag": '"a2"'}, b'{"load": 2600}'
    assert told.poll().net_load_w == 2.6e6
    assert told.kinds == []


def test_a_confirmed_document_whose_own_time_stands_still_grows_stale_all_the_same(server: Server) -> None:
    told = asking(server)
    server.headers = {"ETag": '"a1"'}
    at = told.clock.now.isoformat()
    server.body = json.dumps({"load": {"value": 2500, "time": at}}).encode()
    assert told.poll().net_load_w == 2.5e6
    assert math.isnan(told.poll(after_s=61.0).net_load_w)


@pytest.mark.parametrize("status", [204, 301, 302, 401, 404, 500, 503])
def test_an_answer_that_is_no_document_keeps_what_was_good_until_it_is_old(server: Server, status: int) -> None:
    told = asking(server)
    told.poll()
    server.status, server.body = status, b""
    server.headers = {"Location": "http://127.0.0.1:9/elsewhere"} if status in (301, 302) else {}
    assert told.poll().net_load_w == 2.5e6
    told.poll()
    assert math.isnan(told.poll(after_s=61.0).net_load_w)
    assert told.kinds == ["scada-lost", "points-stale"]
    server.status, server.body, server.headers = 200, b'{"load": 2700}', {}
    assert told.poll().net_load_w == 2.7e6


def test_no_redirect_is_followed_and_the_message_says_where_it_led(server: Server) -> None:
    server.status, server.headers = 302, {"Location": server.url.replace("points", "other")}
    told = asking(server, token="s3cret")
    told.poll()
    told.poll()
    assert [path for _, path, _, _ in server.asked] == ["/points", "/points"]
    assert "leads on to" in told.events[0].text


def test_an_answer_beyond_all_size_is_not_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "BYTES_MAX", 1000)
    server.body = b" " * 200_000 + b'{"load": 2500}'
    with pytest.raises(ScadaError, match="more than 1000 bytes"):
        asyncio.run(RestScada(Access(url=server.url, timeout_s=5.0), [LOAD]).fetch())


def test_a_server_that_hangs_holds_nobody_up_and_is_never_asked_twice_at_once(server: Server) -> None:
    server.hang = threading.Event()
    access = Access(url=server.url, timeout_s=0.2)

    async def main() -> int:
        link, turns = RestScada(access, [LOAD]), 0
        for _ in range(2):
            fetching = asyncio.ensure_future(link.fetch())
            while not fetching.done():
                turns += 1
                await asyncio.sleep(0.005)
            with pytest.raises(ScadaError):
                await fetching
        assert len(server.asked) <= 2
        assert server.hang is not None
        server.hang.set()
        return turns

    assert asyncio.run(main()) > 10


def test_a_connection_that_nobody_takes_is_a_scada_error() -> None:
    access = Access(url="http://127.0.0.1:9/points", timeout_s=1.0)
    with pytest.raises(ScadaError, match=r"127\.0\.0\.1:9/points"):
        asyncio.run(RestScada(access, [LOAD]).fetch())


@pytest.mark.parametrize("trusted", [True, False])
def test_a_certificate_is_always_checked(tmp_path: Path, trusted: bool) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (ours if trusted else theirs).issue_cert("127.0.0.1").configure_cert(context)
    ours.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    said = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(said)) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        said.url = f"https://127.0.0.1:{http.server_port}/points"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told = asking(said, ca=tmp_path / "ca.pem", token="s3cret")
        told.poll()
        told.poll()
        http.shutdown()
        thread.join()
    assert told.kinds == ([] if trusted else ["scada-lost"])
    assert bool(said.asked) is trusted


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_the_plan_is_sent_whole_as_json(server: Server, method: str) -> None:
    publication = publication_of([2e6, 3e6])
    asyncio.run(RestOutlet(Access(url=server.url, timeout_s=5.0, token="s3cret"), method).send(publication))
    ((asked, _, headers, body),) = server.asked
    sent = json.loads(body)
    assert (asked, headers["Content-Type"], headers["Authorization"]) == (method, "application/json", "Bearer s3cret")
    assert (sent["plan"], sent["status"], sent["mode"]) == (7, "valid", "auto")
    assert [step["net_load_kw"] for step in sent["steps"]] == [2000.0, 3000.0]
    assert [step["battery_kw"] for step in sent["steps"]] == [200.0, 300.0]
    assert sent["steps"][1]["start"] == sent["steps"][0]["end"] == "2026-04-15T19:15:00Z"
    assert publication.valid_until - publication.plan.start == timedelta(minutes=30)


def test_a_plan_that_the_server_refuses_is_a_scada_error(server: Server) -> None:
    server.status = 422
    with pytest.raises(ScadaError, match="422"):
        asyncio.run(RestOutlet(Access(url=server.url, timeout_s=5.0), "PUT").send(publication_of([2e6])))
