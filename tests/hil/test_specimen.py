"""The reference device: read by two other libraries, and put through the SunSpec conformance cases by name."""

import asyncio
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import trustme
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FramerType
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from drivers.sunspec.models import decode_point
from hil.adoption import COMPLETED, FAILED, IN_PROGRESS
from hil.fault_kinds import Fault
from hil.framing import Rtu
from hil.registers import BASE
from hil.server import Endpoint, listening
from hil.specimen import MODELS, Manner, ReadOnly, Reverts, Specimen
from hil.unit import SimulatedUnit

ILLEGAL_ADDRESS, ILLEGAL_VALUE = 2, 3


def endpoint(units: dict[int, SimulatedUnit], **how: object) -> Endpoint:
    return Endpoint(units, rng=np.random.default_rng(1), **how)  # type: ignore[arg-type]


@contextmanager
def served(specimen: Specimen) -> Iterator[int]:
    """A port on which a thread serves the specimen, for clients that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    device = endpoint({1: specimen})
    port = asyncio.run_coroutine_threadsafe(device.start("127.0.0.1", 0), loop).result(5.0)
    try:
        yield port
    finally:

        async def stop() -> None:
            device.stop()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(stop(), loop).result(5.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def write(specimen: Specimen, first: str, data: bytes) -> int:
    """Write registers from a point on, as a client would; returns 0 or the exception code."""
    address = specimen.base + specimen.bank.place(first).register
    body = struct.pack(">HHB", address, len(data) // 2, len(data)) + data
    answer = specimen.answer(b"\x10" + body)
    return answer[1] if answer[0] & 0x80 else 0


def put(specimen: Specimen, *named: tuple[str, int]) -> list[int]:
    """Write single points, unscaled, one request each."""
    codes = []
    for name, value in named:
        point = specimen.bank.place(name).point
        data = value.to_bytes(2 * point.size, "big", signed=value < 0)
        codes.append(write(specimen, name, data))
    return codes


def curve(specimen: Specimen, model: int, number: int) -> dict[str, object]:
    prefix = f"{model}.{'Ctl' if model == 711 else 'Crv'}[{number - 1}]."
    names = [name for name in specimen.bank.names() if name.startswith(prefix) and not name.endswith("ReadOnly")]
    return {name.removeprefix(prefix): specimen.bank.raw(0, name) for name in names}


@pytest.fixture(scope="module")
def scanned() -> tuple[Specimen, SunSpecModbusClientDeviceTCP]:
    """A specimen with every model, and what pysunspec2 made of it."""
    specimen = Specimen(serial="SN-77")
    with served(specimen) as port:
        client = SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr="127.0.0.1", ipport=port, timeout=5.0)
        client.scan()
        client.close()
    return specimen, client


def test_pysunspec2_finds_every_model_where_it_is(
    scanned: tuple[Specimen, SunSpecModbusClientDeviceTCP],
) -> None:
    specimen, client = scanned
    assert [model.model_id for model in client.model_list] == list(MODELS)
    assert [model.model_addr for model in client.model_list] == [BASE + specimen.bank.start[m] for m in MODELS]
    assert client.common[0].SN.value == "SN-77"


@pytest.mark.parametrize("model", MODELS)
def test_pysunspec2_agrees_on_every_value(model: int, scanned: tuple[Specimen, SunSpecModbusClientDeviceTCP]) -> None:
    specimen, client = scanned
    theirs = client.models[model][0]
    assert theirs.error_info == ""
    compared = 0
    for name in specimen.bank.names():
        number, _, path = name.partition(".")
        if number == str(model):
            place = specimen.bank.place(name)
            at = 2 * place.register
            held = decode_point(place.point, bytes(specimen.view[at : at + 2 * place.point.size]))
            value = _point(theirs, path).value
            if place.point.type == "pad" or held is None:
                continue
            assert value == pytest.approx(held) if isinstance(held, float) else value == held, name
            compared += 1
    assert compared >= 4


def _point(group: Any, path: str) -> Any:
    """A point of pysunspec2's tree by our path, `Crv[0].Pt[1].V`."""
    for part in path.split("."):
        name, _, index = part.partition("[")
        group = getattr(group, name)
        if index:
            group = group[int(index[:-1])]
    return group


def test_dev_1_and_mod_1_pymodbus_walks_the_chain_from_suns_to_its_end() -> None:
    async def walk(port: int) -> list[int]:
        async with AsyncModbusTcpClient("127.0.0.1", port=port) as client:
            at, found = BASE, []
            assert (await client.read_holding_registers(at, count=2)).registers == [0x5375, 0x6E53]
            at += 2
            while (header := (await client.read_holding_registers(at, count=2)).registers)[0] != 0xFFFF:
                found.append(header[0])
                at += 2 + header[1]
            assert (await client.read_holding_registers(at + 2, count=1)).exception_code == ILLEGAL_ADDRESS
        return found

    async def scenario() -> None:
        async with listening(endpoint({1: Specimen()})) as port:
            assert await walk(port) == list(MODELS)

    asyncio.run(scenario())


def test_dev_2_the_common_model_says_who_it_is_and_takes_an_address() -> None:
    specimen = Specimen((1, 701), serial="SN-9")
    texts = [specimen.bank.raw(0, f"1.{name}") for name in ("Mn", "Md", "Opt", "Vr", "SN")]
    assert texts == ["Simulated", "Specimen", "all models", "1.0", "SN-9"]
    assert put(specimen, ("1.DA", 5)) == [0]
    assert specimen.value("1.DA") == 5


@pytest.mark.parametrize("pieces", [(4, 4, 4), (1,) * 12, (11, 1)])
def test_tcp_2_a_request_in_parts_is_answered_when_it_is_whole(pieces: Sequence[int]) -> None:
    async def scenario() -> None:
        async with listening(endpoint({1: Specimen((1,))})) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            request = struct.pack(">HHHBBHH", 3, 0, 6, 1, 3, BASE, 2)
            for size in pieces:
                part, request = request[:size], request[size:]
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.001)
            assert (await asyncio.wait_for(reader.readexactly(13), 2.0))[9:] == b"SunS"
            writer.close()

    asyncio.run(scenario())


def test_tcp_3_requests_in_one_packet_are_each_answered() -> None:
    async def scenario() -> None:
        async with listening(endpoint({1: Specimen((1,))})) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"".join(struct.pack(">HHHBBHH", i, 0, 6, 1, 3, BASE, 2) for i in range(5)))
            answers = await asyncio.wait_for(reader.readexactly(5 * 13), 2.0)
            assert [answers[13 * i + 1] for i in range(5)] == list(range(5))
            writer.close()

    asyncio.run(scenario())


def test_mod_3_every_writable_point_takes_back_what_it_holds_and_reads_the_same() -> None:
    specimen = Specimen()
    taken = 0
    for name in specimen.bank.names():
        place = specimen.bank.place(name)
        if not place.point.writable:
            continue
        held = bytes(specimen.view[2 * place.register : 2 * (place.register + place.point.size)])
        code = write(specimen, name, held)
        trip = place.model in range(707, 711)
        active = place.model in (705, 706, 711, 712) and (".Crv[0]." in name or ".Ctl[0]." in name)
        no_request = name.endswith(("AdptCrvReq", "AdptCtlReq"))
        assert code == (ILLEGAL_ADDRESS if trip or active else ILLEGAL_VALUE if no_request else 0), name
        assert bytes(specimen.view[2 * place.register : 2 * (place.register + place.point.size)]) == held
        taken += not code
    assert taken > 150


@pytest.mark.parametrize(
    ("point", "value", "code"),
    [
        ("701.W", 5, ILLEGAL_ADDRESS),
        ("701.W_SF", 1, ILLEGAL_ADDRESS),
        ("704.WMaxLimPctRvrtRem", 5, ILLEGAL_ADDRESS),
        ("707.Ena", 0, ILLEGAL_ADDRESS),
        ("707.Crv[1].MustTrip.ActPt", 2, ILLEGAL_ADDRESS),
        ("705.Crv[0].ActPt", 3, ILLEGAL_ADDRESS),
        ("704.WMaxLimPct", 10_001, ILLEGAL_VALUE),
        ("704.WMaxLimPct", 0xFFFF, ILLEGAL_VALUE),
        ("704.WMaxLimPctEna", 2, ILLEGAL_VALUE),
        ("704.WSetMod", 7, ILLEGAL_VALUE),
        ("704.WSet", 10_001, ILLEGAL_VALUE),
        ("704.WSet", -10_001, ILLEGAL_VALUE),
        ("704.PFWInj.PF", 101, ILLEGAL_VALUE),
        ("705.AdptCrvReq", 4, ILLEGAL_VALUE),
        ("123.WMaxLim_Ena", 9, ILLEGAL_VALUE),
        ("124.InWRte", -10_001, ILLEGAL_VALUE),
        ("715.OpCtl", 4, ILLEGAL_VALUE),
        ("704.WMaxLimPct", 9999, 0),
        ("704.WSet", -10_000, 0),
        ("715.OpCtl", 3, 0),
    ],
)
def test_rejection_a_write_that_may_not_be_is_refused_and_changes_nothing(point: str, value: int, code: int) -> None:
    specimen = Specimen()
    before = bytes(specimen.view)
    assert put(specimen, (point, value)) == [code]
    assert (bytes(specimen.view) == before) == bool(code)


def test_a_read_only_point_inside_a_block_refuses_the_block_or_keeps_its_value_silently() -> None:
    block = struct.pack(">HHHHIIHH", 1, 5000, 0, 0, 60, 999, 1, 1)  # over WMaxLimPctRvrtRem, up to WSetMod
    refusing = Specimen((1, 704))
    assert write(refusing, "704.WMaxLimPctEna", block) == ILLEGAL_ADDRESS
    assert refusing.value("704.WMaxLimPct") == 100.0
    keeping = Specimen((1, 704), manner=Manner(read_only=ReadOnly.KEPT))
    assert write(keeping, "704.WMaxLimPctEna", block) == 0
    assert keeping.value("704.WMaxLimPct") == 50.0
    assert keeping.value("704.WMaxLimPctRvrtRem") == 60.0


def limited(specimen: Specimen, seconds: int) -> None:
    """Limit to 30 %, back to 80 % after some seconds."""
    assert write(specimen, "704.WMaxLimPctEna", struct.pack(">HHHHI", 1, 3000, 8000, 1, seconds)) == 0


def test_rev_1_a_timer_counts_down_shows_it_and_reverts() -> None:
    specimen = Specimen((1, 701, 704))
    limited(specimen, 60)
    specimen.tick(0.5)
    assert specimen.value("704.WMaxLimPctRvrtRem") == 60.0
    specimen.tick(58.5)
    assert [specimen.value(f"704.WMaxLimPct{p}") for p in ("", "RvrtRem")] == [30.0, 1.0]
    assert specimen.value("701.W") == 3000.0
    specimen.tick(1.0)
    assert [specimen.value(f"704.WMaxLimPct{p}") for p in ("", "Ena", "RvrtRem")] == [80.0, 1.0, 0.0]
    assert specimen.value("701.W") == 8000.0


def test_rev_2_a_timer_starts_again_when_its_function_is_written() -> None:
    specimen = Specimen((1, 704))
    limited(specimen, 60)
    specimen.tick(50.0)
    assert put(specimen, ("704.WMaxLimPctRvrtTms", 30)) == [0]
    assert specimen.value("704.WMaxLimPctRvrtRem") == 30.0
    specimen.tick(29.0)
    assert put(specimen, ("704.WMaxLimPct", 2000)) == [0]
    specimen.tick(29.0)
    assert specimen.value("704.WMaxLimPct") == 20.0
    specimen.tick(1.0)
    assert specimen.value("704.WMaxLimPct") == 80.0


@pytest.mark.parametrize("end", [("704.WMaxLimPctRvrtTms", 0), ("704.WMaxLimPctEna", 0)])
def test_rev_3_a_timer_is_cancelled_by_time_zero_and_by_disabling(end: tuple[str, int]) -> None:
    specimen = Specimen((1, 704))
    limited(specimen, 60)
    assert put(specimen, end) == [0]
    specimen.tick(3600.0)
    assert specimen.value("704.WMaxLimPct") == 30.0
    assert specimen.value("704.WMaxLimPctRvrtRem") == 0.0


def test_every_function_of_704_and_those_of_123_and_124_revert_by_timers_of_their_own() -> None:
    specimen = Specimen((1, 123, 124, 704))
    assert (
        put(
            specimen,
            *(("704.WSet", -4000), ("704.WSetRvrt", 700), ("704.WSetRvrtTms", 10), ("704.WSetEna", 1)),
            *(("704.VarSet", 500), ("704.VarSetRvrtTms", 20), ("704.VarSetEna", 1)),
            *(("704.PFWInj.PF", 90), ("704.PFWInjRvrtTms", 30), ("704.PFWInjEna", 1)),
            *(("123.WMaxLimPct_RvrtTms", 10), ("123.WMaxLim_Ena", 1), ("123.Conn_RvrtTms", 20), ("123.Conn", 0)),
            *(("124.InOutWRte_RvrtTms", 30), ("124.StorCtl_Mod", 3)),
        )
        == [0] * 16
    )
    enabled = ("704.WSetEna", "704.VarSetEna", "704.PFWInjEna", "123.WMaxLim_Ena", "123.Conn", "124.StorCtl_Mod")
    seen = []
    for _ in range(4):
        seen.append([specimen.value(name) for name in enabled])
        specimen.tick(10.0)
    assert seen == [[1, 1, 1, 1, 0, 3], [0, 1, 1, 0, 0, 3], [0, 0, 1, 0, 1, 3], [0, 0, 0, 0, 1, 0]]
    assert [specimen.value(f"704.{p}") for p in ("WSet", "VarSet", "PFWInj.PF")] == [700.0, 0.0, 1.0]


def test_a_device_of_class_b_lets_go_when_the_controllers_heartbeat_ends() -> None:
    specimen = Specimen((1, 701, 704, 715), manner=Manner(reverts=Reverts.BY_HEARTBEAT, heartbeat_s=10.0))
    limited(specimen, 5)
    for beat in range(6):
        assert put(specimen, ("715.ControllerHb", beat)) == [0]
        specimen.tick(3.0)
    assert specimen.value("704.WMaxLimPct") == 30.0
    assert specimen.value("715.DERHb") == 18.0
    specimen.tick(7.0)
    assert specimen.value("704.WMaxLimPct") == 80.0


def test_a_device_of_class_c_holds_what_it_was_told_for_ever() -> None:
    specimen = Specimen((1, 704, 715), manner=Manner(reverts=Reverts.NEVER))
    limited(specimen, 5)
    assert put(specimen, ("715.ControllerHb", 1)) == [0]
    specimen.tick(1e5)
    assert [specimen.value(f"704.WMaxLimPct{p}") for p in ("", "RvrtTms", "RvrtRem")] == [30.0, 5.0, 0.0]


def test_timers_that_are_ignored_or_deaf_to_a_refresh() -> None:
    ignoring = Specimen((1, 704))
    ignoring.fail(Fault.IGNORE_REVERSION)
    limited(ignoring, 60)
    ignoring.tick(90.0)
    assert ignoring.value("704.WMaxLimPct") == 30.0
    early = Specimen((1, 704))
    early.fail(Fault.EARLY_REVERSION)
    limited(early, 60)
    early.tick(40.0)
    limited(early, 60)
    early.tick(20.0)
    assert early.value("704.WMaxLimPct") == 80.0


def test_power_follows_limit_setpoint_and_leave_to_run_and_local_control_holds_it() -> None:
    specimen = Specimen((1, 103, 113, 123, 701, 703, 704, 715))

    def after(*named: tuple[str, int]) -> float:
        assert set(put(specimen, *named)) <= {0}
        specimen.tick(1.0)
        return specimen.value("701.W")

    assert after() == 8000.0
    assert after(("704.WSet", -5000), ("704.WSetEna", 1)) == -5000.0
    assert after(("704.WSetMod", 0), ("704.WSetPct", 7000)) == 7000.0
    assert after(("704.WMaxLimPct", 4000), ("704.WMaxLimPctEna", 1)) == 4000.0
    assert specimen.value("701.InvSt") == 4.0
    assert after(("123.WMaxLimPct", 2000), ("123.WMaxLim_Ena", 1)) == pytest.approx(2000.0)
    assert specimen.value("113.W") == specimen.value("103.W") == pytest.approx(2000.0)
    assert after(("703.ES", 0)) == 0.0
    assert specimen.value("701.ConnSt") == 0.0
    assert after(("703.ES", 1), ("715.OpCtl", 0)) == 0.0
    specimen.fail(Fault.LOCAL_MODE)
    assert after(("715.OpCtl", 1)) == 0.0
    assert specimen.value("715.OpCtl") == 1.0


@pytest.mark.parametrize("model", [705, 706, 711, 712])
def test_crv_1_the_active_curve_is_the_first_and_only_to_be_read(model: int) -> None:
    specimen = Specimen((1, model))
    group = "Ctl" if model == 711 else "Crv"
    read_only = [specimen.value(f"{model}.{group}[{i}].ReadOnly") for i in range(3)]
    assert read_only == [1, 0, 0]
    point = next(iter(curve(specimen, model, 1)))
    size = specimen.bank.place(f"{model}.{group}[0].{point}").point.size
    assert write(specimen, f"{model}.{group}[0].{point}", bytes(2 * size)) == ILLEGAL_ADDRESS


@pytest.mark.parametrize(
    ("model", "point", "value"),
    [
        (705, "Crv[1].Pt[0].Var", 3000),
        (706, "Crv[1].Pt[1].W", 20),
        (711, "Ctl[1].KOf", 4),
        (712, "Crv[1].Pt[0].W", -99),
    ],
)
def test_crv_2_a_curve_is_written_and_adopted_and_is_then_the_active_one(model: int, point: str, value: int) -> None:
    specimen = Specimen((1, model))
    kind = "Ctl" if model == 711 else "Crv"
    before = curve(specimen, model, 1)
    assert put(specimen, (f"{model}.{point}", value), (f"{model}.Adpt{kind}Req", 2)) == [0, 0]
    assert specimen.value(f"{model}.Adpt{kind}Rslt") == IN_PROGRESS
    assert curve(specimen, model, 1) == before
    specimen.tick(1.0)
    assert specimen.value(f"{model}.Adpt{kind}Rslt") == COMPLETED
    assert specimen.value(f"{model}.Adpt{kind}Req") == 2
    assert curve(specimen, model, 1) == curve(specimen, model, 2) != before
    assert specimen.value(f"{model}.{kind}[0].ReadOnly") == 1


@pytest.mark.parametrize(
    ("model", "point", "value"),
    [
        (705, "Crv[1].ActPt", 9),
        (705, "Crv[1].ActPt", 1),
        (706, "Crv[1].Pt[0].V", 12_000),
        (712, "Crv[2].Pt[5].W", -100),
    ],
)
def test_crv_3_a_curve_that_cannot_be_fails_and_leaves_the_active_one(model: int, point: str, value: int) -> None:
    specimen = Specimen((1, model))
    before = curve(specimen, model, 1)
    number = int(point[4]) + 1
    assert put(specimen, (f"{model}.{point}", value), (f"{model}.AdptCrvReq", number)) == [0, 0]
    specimen.tick(1.0)
    assert specimen.value(f"{model}.AdptCrvRslt") == FAILED
    assert curve(specimen, model, 1) == before


def test_an_adopted_curve_gives_way_to_the_one_that_is_named_for_its_reversion() -> None:
    specimen = Specimen((1, 705))
    assert put(specimen, ("705.Crv[1].Pt[0].Var", 3000), ("705.AdptCrvReq", 2), ("705.RvrtCrv", 3)) == [0, 0, 0]
    assert put(specimen, ("705.RvrtTms", 30), ("705.Ena", 1)) == [0, 0]
    specimen.tick(1.0)
    assert specimen.value("705.RvrtRem") == 29.0
    assert curve(specimen, 705, 1) == curve(specimen, 705, 2)
    specimen.tick(29.0)
    assert curve(specimen, 705, 1) == curve(specimen, 705, 3)


def test_scale_factors_of_a_specimen_are_all_within_their_bounds() -> None:
    specimen = Specimen()
    scales = [p for p in specimen.bank.places.values() if p.point.type == "sunssf"]
    exponents = {specimen.bank.raw(0, f"{p.model}.{p.point.name}") for p in scales}
    assert exponents == {-3, -2, -1, 0, 3}


def test_several_units_answer_behind_one_port_in_rtu_frames_and_at_another_base() -> None:
    async def scenario() -> None:
        units: dict[int, SimulatedUnit] = {
            unit: Specimen((1, 704), serial=f"SN-{unit}", base=base) for unit, base in ((1, 0), (126, 50_000))
        }
        async with (
            listening(endpoint(units, framing=Rtu())) as port,
            AsyncModbusTcpClient("127.0.0.1", port=port, framer=FramerType.RTU, timeout=2.0) as client,
        ):
            for unit, base in ((1, 0), (126, 50_000)):
                serial = await client.read_holding_registers(base + 52, count=16, device_id=unit)
                text = struct.pack(">16H", *serial.registers).rstrip(b"\0").decode()
                assert text == f"SN-{unit}"
                limit = base + 2 + 68 + 15
                assert not (await client.write_registers(limit, [4000], device_id=unit)).isError()
                assert (await client.read_holding_registers(limit, count=1, device_id=unit)).registers == [4000]

    asyncio.run(scenario())


def test_a_specimen_inside_mutual_tls_answers_who_has_a_certificate() -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.issue_cert("controller.example").configure_cert(client)
    authority.configure_trust(server)
    authority.configure_trust(client)
    server.verify_mode = ssl.CERT_REQUIRED

    async def scenario() -> None:
        async with listening(endpoint({1: Specimen((1,))}, tls=server)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            writer.write(struct.pack(">HHHBBHH", 3, 0, 6, 1, 3, BASE, 2))
            assert (await asyncio.wait_for(reader.readexactly(13), 2.0))[9:] == b"SunS"
            writer.close()

    asyncio.run(scenario())


def test_a_specimen_of_models_that_are_not_known_or_come_twice_is_refused() -> None:
    for models in ((1, 999), (1, 701, 701), (701, 1)):
        with pytest.raises(ValueError, match="give 1 first"):
            Specimen(models)
