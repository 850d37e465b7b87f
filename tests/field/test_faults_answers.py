"""Devices that answer wrongly, or not, in every known way: nothing wrong is believed, and all of it passes over.

Numbers are those of the failure catalogue in `test_fault_catalogue`.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from derms.domain.alarm import Severity
from derms.domain.dispatch import Quantity
from derms.domain.quality import Quality
from derms.domain.settings import FieldSettings
from hil.server import Fault
from tests.field.rig import Rig, in_the_field

QUICKLY = FieldSettings(backoff_min_s=2.0, backoff_max_s=10.0)
STALE_S, BACK_S = 60.0, 45.0
"""After a fault has begun, until the last value is old; after it has ended, until the device is trusted again."""


def nothing_is_believed(kind: Fault, value: float | None, folder: Path) -> None:
    """While a device answers so, no reading of it is taken in; it is lost once, back once, and nobody else notices."""

    async def scenario(rig: Rig) -> None:
        server, row = rig.world.servers["bat01"], rig.fleet.index["bat01"]
        server.fault(kind, value)
        await asyncio.sleep(0.1)
        last_s, last_w = rig.poller.requested_s(row), rig.poller.snapshot().p_w[row]
        for _ in range(round(STALE_S)):
            await asyncio.sleep(1.0)
            assert rig.poller.requested_s(row) == last_s
            assert rig.poller.snapshot().p_w[row] == last_w
            assert rig.quality("pv01") is Quality.GOOD
        assert rig.quality("bat01") is Quality.STALE
        await server.heal()
        await asyncio.sleep(BACK_S)
        assert rig.quality("bat01") is Quality.GOOD
        assert rig.poller.requested_s(row) > last_s
        assert [(event.source, event.kind) for event in rig.events] == [
            ("bat01", "device-lost"),
            ("bat01", "device-back"),
        ]

    in_the_field(scenario, folder, devices=("bat01", "pv01"), polling=QUICKLY)


@pytest.mark.parametrize("kind", [Fault.HANG, Fault.STOP])
def test_fault_01_a_device_without_an_answer_is_stale_and_costs_nobody_else_anything(
    kind: Fault, tmp_path: Path
) -> None:
    nothing_is_believed(kind, None, tmp_path)


def test_fault_02_a_connection_whose_other_end_is_gone_is_given_up_by_its_own_deadline(tmp_path: Path) -> None:
    nothing_is_believed(Fault.HALF_OPEN, None, tmp_path)


def test_fault_03_an_answer_that_dribbles_is_closed_at_the_deadline_of_its_request(tmp_path: Path) -> None:
    nothing_is_believed(Fault.DRIBBLE, 0.05, tmp_path)


@pytest.mark.parametrize("unit", [0, 2, 255])
def test_fault_05_an_answer_of_another_unit_is_not_believed(unit: int, tmp_path: Path) -> None:
    nothing_is_believed(Fault.WRONG_UNIT, unit, tmp_path)


@pytest.mark.parametrize("kind", [Fault.WRONG_TRANSACTION, Fault.ZERO_TRANSACTION])
def test_fault_06_an_answer_to_another_transaction_is_not_believed(kind: Fault, tmp_path: Path) -> None:
    nothing_is_believed(kind, None, tmp_path)


def test_fault_06_an_answer_that_comes_after_its_time_out_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    nothing_is_believed(Fault.LATE, None, tmp_path)


@pytest.mark.parametrize("kind", [Fault.SHORT, Fault.LONG, Fault.ODD, Fault.DROP_MID_FRAME])
def test_fault_07_a_block_of_another_size_is_rejected_whole(kind: Fault, tmp_path: Path) -> None:
    nothing_is_believed(kind, None, tmp_path)


def test_fault_08_an_answer_with_another_function_code_is_not_believed(tmp_path: Path) -> None:
    nothing_is_believed(Fault.WRONG_FUNCTION, None, tmp_path)


@pytest.mark.parametrize("kind", [Fault.GARBAGE, Fault.WRONG_PROTOCOL])
def test_fault_09_garbage_closes_the_connection_and_is_not_believed(kind: Fault, tmp_path: Path) -> None:
    nothing_is_believed(kind, None, tmp_path)


def test_fault_10_answers_that_go_on_coming_twice_are_never_paired_with_the_next_question(tmp_path: Path) -> None:
    nothing_is_believed(Fault.DUPLICATE, None, tmp_path)


def with_bat01(scenario: Callable[[Rig], Awaitable[None]], folder: Path) -> None:
    in_the_field(scenario, folder, devices=("bat01",), polling=QUICKLY)


@pytest.mark.parametrize(
    ("code", "kind", "severity", "said"),
    [
        (1, "device-refuses", Severity.ALARM, "illegal function"),
        (2, "device-refuses", Severity.ALARM, "illegal address"),
        (3, "device-refuses", Severity.ALARM, "illegal value"),
        (10, "device-lost", Severity.WARNING, "gateway path unavailable"),
        (11, "device-lost", Severity.WARNING, "gateway target device failed to respond"),
        (4, "device-lost", Severity.WARNING, "device failure"),
        (0x77, "device-lost", Severity.WARNING, "unknown exception (119)"),
    ],
)
def test_fault_04_an_exception_is_told_by_what_it_means_and_a_wrong_configuration_is_an_alarm(
    code: int, kind: str, severity: Severity, said: str, tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.EXCEPTION, code)
        await asyncio.sleep(STALE_S)
        first, *more = rig.events
        assert (first.kind, first.severity) == (kind, severity)
        assert said in first.text
        assert {event.kind for event in more} <= {"device-mismatch"}  # a new scan of it finds no map either
        assert rig.quality("bat01") is Quality.STALE
        await rig.world.servers["bat01"].heal()
        await asyncio.sleep(BACK_S)
        assert rig.quality("bat01") is Quality.GOOD

    with_bat01(scenario, tmp_path)


def test_fault_04_what_a_device_does_not_have_is_not_asked_for_in_a_hurry(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.EXCEPTION, 2)
        before = rig.poller.counts.failed
        await asyncio.sleep(60.0)
        # The shortest wait would be 2 s at first; here every wait is half the longest at the least.
        assert 1 <= rig.poller.counts.failed - before <= 60.0 / (0.5 * QUICKLY.backoff_max_s)

    with_bat01(scenario, tmp_path)


def test_fault_04_a_busy_device_is_asked_again_on_the_same_connection(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        server = rig.world.servers["bat01"]
        (connection,) = server.links
        failed = rig.poller.counts.failed
        server.fault(Fault.BUSY, 2)
        await asyncio.sleep(30.0)
        assert rig.poller.counts.failed == failed + 2
        assert server.links == {connection}
        assert rig.quality("bat01") is Quality.GOOD
        await asyncio.sleep(30.0)
        assert rig.poller.counts.failed == failed + 2

    with_bat01(scenario, tmp_path)


def test_fault_08_a_write_whose_echo_is_wrong_is_unknown_until_it_can_be_read_back(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.WRONG_ECHO)
        rig.want({"bat01": 6e3})
        await rig.turns(61.0)
        assert set(rig.ended("bat01")) == {"Unknown"}
        assert rig.true_w("bat01") == pytest.approx(6e3)
        await rig.world.servers["bat01"].heal()
        await rig.turns(121.0)
        assert rig.ended("bat01")[-1] == "Applied"
        await rig.reconciler.hand_back()
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=("bat01",), polling=QUICKLY)


def test_fault_10_answers_in_single_bytes_or_twice_for_once_have_no_effect(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        server = rig.world.servers["bat01"]
        server.fault(Fault.SPLIT)
        failed = rig.poller.counts.failed
        await asyncio.sleep(60.0)
        assert rig.poller.counts.failed == failed
        await server.heal()
        server.fault(Fault.DUPLICATE)
        for _ in range(120):
            await asyncio.sleep(0.1)
            if rig.poller.counts.failed > failed:
                break
        await server.heal()
        for _ in range(60):
            await asyncio.sleep(1.0)
            assert rig.quality("bat01") is Quality.GOOD
        assert rig.poller.counts.failed == failed + 1
        assert rig.events == []

    with_bat01(scenario, tmp_path)


@pytest.mark.parametrize("kind", [Fault.SCALE_CHANGE, Fault.SCALE_TORN])
def test_fault_11_whenever_scale_factors_change_a_good_value_is_a_right_one(kind: Fault, tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["pv01"].fault(kind)
        qualities, values_w = set(), set()
        for poll in range(60):
            if poll % 7 == 0:  # an odd number of requests between two polls, so that they meet every moment of it
                await rig.sessions["pv01"].read_back(Quantity.P_LIMIT)
            await asyncio.sleep(10.0)
            quality, w = rig.quality("pv01"), float(rig.poller.snapshot().p_w[0])
            qualities.add(quality)
            values_w.add(w)
            if quality is Quality.GOOD:
                assert w == pytest.approx(rig.true_w("pv01"), rel=0.1)
        assert Quality.GOOD in qualities
        if kind is Fault.SCALE_TORN:
            assert Quality.SUSPECT in qualities
        else:
            assert qualities == {Quality.GOOD}

    in_the_field(scenario, tmp_path, devices=("pv01",))


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Fault.BAD_SCALE, 11), (Fault.BAD_SCALE, -11), (Fault.BAD_SCALE, 0x7FFF), (Fault.NAN_SCALE, None)],
)
def test_fault_11_behind_a_scale_factor_that_cannot_be_is_no_value(
    kind: Fault, value: float | None, tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(kind, value)
        await asyncio.sleep(11.0)
        snapshot = rig.poller.snapshot()
        assert math.isnan(snapshot.p_w[0])
        assert math.isnan(snapshot.v_pu[0])
        assert snapshot.quality[0] == Quality.NOT_IMPLEMENTED
        await rig.world.servers["bat01"].heal()
        await asyncio.sleep(11.0)
        assert rig.quality("bat01") is Quality.GOOD

    with_bat01(scenario, tmp_path)


def test_fault_12_sentinels_are_no_values_and_never_zero(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        before = {name: values[0] for name, values in rig.poller.snapshot().columns.items()}
        assert np.isfinite(before["p_w"])
        rig.world.servers["bat01"].fault(Fault.SENTINEL)
        await asyncio.sleep(11.0)
        snapshot = rig.poller.snapshot()
        for name in ("p_w", "q_var", "v_v", "soc_frac", "s_va", "i_a", "f_hz", "state", "injected_wh"):
            assert math.isnan(snapshot.columns[name][0]), name
        assert snapshot.quality[0] == Quality.NOT_IMPLEMENTED
        assert not snapshot.good("p_w").any()

    with_bat01(scenario, tmp_path)


def test_fault_14_ten_times_the_power_and_a_turned_sign_are_suspect_and_leave_control(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        for pv, power_w in (("pv01", 20e3), ("pv02", -20e3), ("pv03", 20e3)):
            server = rig.world.servers[pv]
            values = server.bank.get("701.W")
            values[server.row] = power_w
            server.bank.put("701.W", values)
        rig.world.servers["pv01"].fault(Fault.IMPLAUSIBLE)
        await asyncio.sleep(10.5)
        assert [rig.quality(pv) for pv in ("pv01", "pv02", "pv03")] == [Quality.SUSPECT] * 2 + [Quality.GOOD]
        assert rig.poller.snapshot().good("p_w").tolist() == [False, False, True]

    in_the_field(scenario, tmp_path, devices=("pv01", "pv02", "pv03"), standing=True)


def test_fault_14_a_state_of_charge_that_jumps_is_suspect(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        server = rig.world.servers["bat01"]
        soc = server.bank.get("713.SoC")
        soc[server.row] += 20.0
        server.bank.put("713.SoC", soc)
        await asyncio.sleep(10.5)
        assert rig.quality("bat01") is Quality.SUSPECT
        await asyncio.sleep(10.0)
        assert rig.quality("bat01") is Quality.GOOD

    in_the_field(scenario, tmp_path, devices=("bat01",), standing=True)


def test_fault_15_a_device_whose_clock_jumps_is_read_and_commanded_by_our_time(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        server = rig.world.servers["bat03"]
        rig.want({"bat03": 5e3})
        for device_s in (830_000_000, 0, 0xFFFF_FFFE, 12):  # seconds since 2000, as model 122 has them
            server.bank.set_raw(server.row, "122.Tms", device_s)
            await rig.turns(61.0)
            snapshot = rig.poller.snapshot()
            assert 0.0 <= snapshot.age_s[0] <= 10.1
            assert snapshot.at == rig.clock.utc()
            assert rig.quality("bat03") is Quality.GOOD
            assert rig.holding() == {"bat03"}
        assert set(rig.ended("bat03")) == {"Applied"}
        assert rig.events == []

    in_the_field(scenario, tmp_path, devices=("bat03",))


def test_fault_21_a_device_for_one_client_is_lost_to_another_master_and_back_when_that_leaves(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        server = rig.world.servers["bat01"]
        server.fault(Fault.SECOND_REFUSED)
        await asyncio.sleep(60.0)
        assert rig.quality("bat01") is Quality.GOOD  # we are the one client
        server.fault(Fault.REFUSE)
        await server.heal()
        _, writer = await asyncio.open_connection("127.0.0.1", rig.fleet.devices[0].endpoint.port)
        server.fault(Fault.SECOND_REFUSED)
        await asyncio.sleep(STALE_S)
        assert rig.quality("bat01") is Quality.STALE
        writer.close()
        await asyncio.sleep(BACK_S)
        assert rig.quality("bat01") is Quality.GOOD
        assert rig.events_of("bat01") == ["other-master", "device-back"]

    with_bat01(scenario, tmp_path)


def test_fault_23_after_an_update_that_moved_the_map_setpoints_go_to_the_new_addresses(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        server = rig.world.servers["bat01"]
        rig.want({"bat01": 6e3})
        await rig.turns(61.0)
        server.fault(Fault.MAP_CHANGE)
        rig.want({"bat01": 9e3})
        await rig.turns(121.0)
        assert rig.true_w("bat01") == pytest.approx(9e3)
        assert rig.quality("bat01") is Quality.GOOD
        assert rig.poller.snapshot().p_w[0] == pytest.approx(9e3, rel=0.05)
        assert rig.ended("bat01")[-1] == "Applied"

    in_the_field(scenario, tmp_path, devices=("bat01",), polling=QUICKLY)


def test_fault_24_what_a_device_calls_itself_cannot_write_lines_of_its_own_into_the_log(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        server = rig.world.servers["bat01"]
        server.bank.set_raw(server.row, "1.SN", "\x1b[2JEVIL\r\nALARM\u202e")
        server.fault(Fault.REFUSE)
        await server.heal()
        await asyncio.sleep(STALE_S)
        (event,) = rig.events
        assert event.kind == "device-mismatch"
        assert event.text.isprintable()
        assert "EVILALARM" in event.text

    with_bat01(scenario, tmp_path)


def test_fault_29_another_device_at_the_address_is_never_written_to(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        server = rig.world.servers["bat01"]
        rig.want({"bat01": 6e3})
        await rig.turns(61.0)
        server.fault(Fault.SERIAL_CHANGE)
        rig.wire.clear()
        rig.outcomes.clear()
        rig.want({"bat01": -6e3})
        await rig.turns(240.0)
        assert rig.wire == []
        assert set(rig.ended("bat01")) <= {"Failed", "Rejected", "Unknown"}
        assert "device-mismatch" in rig.events_of("bat01")
        assert rig.quality("bat01") is Quality.STALE
        await server.heal()
        await asyncio.sleep(BACK_S)
        await rig.turns(121.0)
        assert rig.true_w("bat01") == pytest.approx(-6e3)

    in_the_field(scenario, tmp_path, devices=("bat01",), polling=QUICKLY)
