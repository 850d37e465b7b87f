"""Modbus/TCP Security: both ends verified, and a refusal on either side said clearly."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from derms.domain.der import Endpoint, Transport
from derms.errors import ConfigError, DeviceUnreachable
from drivers.modbus.unit import Unit
from tests.drivers.oracles import good_answer, next_request, registers_at, sessions_with

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
HOST = "127.0.0.1"
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@dataclass(frozen=True)
class Authorities:
    """The site's own certificate authority, one that nobody knows, and our files by the site's."""

    ours: trustme.CA
    other: trustme.CA
    folder: Path

    def files(self, name: str, *, by: trustme.CA, **of: Any) -> dict[str, Path]:
        """Options of a client with a certificate by an authority."""
        leaf = by.issue_cert("control-room", **of)
        ca, certificate, key = (self.folder / f"{name}-{part}.pem" for part in ("ca", "certificate", "key"))
        self.ours.cert_pem.write_to_path(str(ca))
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        return {"tls_ca": ca, "tls_certificate": certificate, "tls_key": key}

    def device(self, *, by: trustme.CA, host: str = HOST, **of: Any) -> ssl.SSLContext:
        """A device that asks every client for a certificate by the site's authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        by.issue_cert(host, **of).configure_cert(context)
        self.ours.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(trustme.CA(), trustme.CA(), tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def secure_device(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A sound device over TLS; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(good_answer(await next_request(reader)))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=context)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # handshakes fail on purpose here
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def secure_unit(port: int, files: dict[str, Path]) -> Unit:
    return sessions_with(**files).unit(Endpoint(HOST, port, 1, Transport.TLS))


async def read_once(device: ssl.SSLContext, files: dict[str, Path]) -> bytes:
    """Connect and read; with TLS 1.3 a refused client learns it on the first read only."""
    async with secure_device(device) as port:
        unit = secure_unit(port, files)
        try:
            await unit.connect()
            return await unit.read(100, 2)
        finally:
            unit.disconnect()
            await asyncio.sleep(0.01)


def run_on(new_loop: Callable[[], asyncio.AbstractEventLoop], device: ssl.SSLContext, files: dict[str, Path]) -> bytes:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(asyncio.wait_for(read_once(device, files), 5))


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_device_and_control_room_that_know_each_other_speak(
    authorities: Authorities, version: ssl.TLSVersion, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    device = authorities.device(by=authorities.ours)
    device.minimum_version = device.maximum_version = version
    assert run_on(new_loop, device, authorities.files("good", by=authorities.ours)) == registers_at(100, 2)


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("fault", ["other authority", "expired"])
def test_device_that_refuses_our_certificate_is_unreachable_and_the_reason_is_told(
    authorities: Authorities, version: ssl.TLSVersion, fault: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    device = authorities.device(by=authorities.ours)
    device.minimum_version = device.maximum_version = version
    files = (
        authorities.files("other", by=authorities.other)
        if fault == "other authority"
        else authorities.files("old", by=authorities.ours, not_before=LONG_AGO, not_after=LONG_AGO.replace(year=2021))
    )
    with pytest.raises(DeviceUnreachable, match=r"not accept our certificate|unknown ca|expired"):
        run_on(new_loop, device, files)


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        ({"host": "10.1.2.3"}, "IP address mismatch"),
        ({"not_before": LONG_AGO, "not_after": LONG_AGO.replace(year=2021)}, "certificate has expired"),
    ],
    ids=["for another host", "expired"],
)
def test_device_with_a_certificate_that_does_not_hold_is_never_spoken_to(
    authorities: Authorities, of: dict[str, Any], reason: str
) -> None:
    device = authorities.device(by=authorities.ours, **of)
    with pytest.raises(DeviceUnreachable, match=f"no connection: .*{reason}"):
        run_on(asyncio.new_event_loop, device, authorities.files("good", by=authorities.ours))


def test_device_of_an_unknown_authority_is_never_spoken_to(authorities: Authorities) -> None:
    device = authorities.device(by=authorities.other)
    with pytest.raises(DeviceUnreachable, match=r"no connection: .*unable to get local issuer"):
        run_on(asyncio.new_event_loop, device, authorities.files("good", by=authorities.ours))


def test_device_that_speaks_tls_1_1_is_never_spoken_to(authorities: Authorities) -> None:
    device = authorities.device(by=authorities.ours)
    device.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        device.minimum_version = device.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(DeviceUnreachable, match="no connection"):
        run_on(asyncio.new_event_loop, device, authorities.files("good", by=authorities.ours))


def test_device_that_speaks_no_tls_is_never_spoken_to(authorities: Authorities) -> None:
    async def scenario() -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\x00\x01\x00\x00\x00\x03\x01\x83\x02")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(plain, HOST, 0)
        unit = secure_unit(server.sockets[0].getsockname()[1], authorities.files("good", by=authorities.ours))
        with pytest.raises(DeviceUnreachable, match="no connection"):
            await unit.connect()
        server.close()

    asyncio.run(asyncio.wait_for(scenario(), 5))


@pytest.mark.parametrize("missing", ["tls_ca", "tls_certificate", "tls_key"])
def test_secure_endpoint_without_all_three_files_is_a_mistake_of_the_site_file(
    authorities: Authorities, missing: str
) -> None:
    files = authorities.files("good", by=authorities.ours)
    del files[missing]
    with pytest.raises(ConfigError, match=f"no {missing}"):
        secure_unit(802, files)


def test_key_of_another_certificate_is_a_mistake_of_the_site_file(authorities: Authorities) -> None:
    files = authorities.files("good", by=authorities.ours)
    files["tls_key"] = authorities.files("second", by=authorities.ours)["tls_key"]
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        secure_unit(802, files)
