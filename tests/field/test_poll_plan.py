"""How often devices are polled, and what it costs their links."""

import doctest
from dataclasses import replace

import pytest

import derms.field.plan
from derms.domain.der import Device, DeviceKind, Endpoint, Link
from derms.domain.settings import FieldSettings
from derms.field.plan import PollPlan, bytes_per_month, plan_for

SMALL = Device(id="pv1", kind=DeviceKind.PV, driver="sunspec", endpoint=Endpoint("h", 502), bus="", p_rated_w=1e4)


@pytest.mark.parametrize(
    ("device", "name", "poll_s", "stale_after_s"),
    [
        (SMALL, "usual", 10.0, 35.0),
        (replace(SMALL, p_rated_w=1e6), "large plant", 4.0, 35.0),
        (replace(SMALL, link=Link.CELLULAR), "cellular", 60.0, 210.0),
        (replace(SMALL, p_rated_w=1e6, link=Link.CELLULAR), "cellular", 60.0, 210.0),
    ],
)
def test_a_device_is_polled_as_its_class_and_its_link_allow(
    device: Device, name: str, poll_s: float, stale_after_s: float
) -> None:
    assert plan_for(device, FieldSettings()) == PollPlan(name, poll_s, 1800.0, stale_after_s)


def test_a_month_of_reads_costs_their_registers_and_the_headers_of_three_packets_each() -> None:
    plan = PollPlan("usual", poll_s=60.0, settings_s=1e12, stale_after_s=210.0)
    polls = 30 * 24 * 60
    assert bytes_per_month(plan, read=(123,)) == pytest.approx(polls * (3 * 52 + 12 + 9 + 246))
    assert bytes_per_month(plan, read=(123, 67)) - bytes_per_month(plan, read=(123,)) == pytest.approx(polls * 311)


def test_the_settings_ring_counts_too() -> None:
    seldom, often = (PollPlan("usual", 60.0, settings_s, 210.0) for settings_s in (1800.0, 600.0))
    assert bytes_per_month(often) > bytes_per_month(seldom)


def test_the_example_in_the_cost_formula_is_true() -> None:
    assert doctest.testmod(derms.field.plan).attempted == 2
    assert doctest.testmod(derms.field.plan).failed == 0
