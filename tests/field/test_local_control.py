"""Local control, the whole way over the wire: told once, nothing is sent, what is held ends by its own timer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.domain.dispatch import Quantity
from derms.domain.scope import Level, Scope
from derms.link.orders import AskWhy, Show, Shown, WhyNot
from derms.service.order_desk import OrderDesk
from derms.service.order_texts import shown_text
from hil.fault_kinds import Fault
from tests.field.rig import QUICK, Rig, in_the_field

BATTERY = "bat01"


def test_fault_17_a_device_under_local_control_is_left_alone_until_it_is_remote_again(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        server, row = rig.world.servers[BATTERY], rig.fleet.index[BATTERY]
        armed_s = rig.reconciler.settings.reversion_s + rig.reconciler.settings.reversion_jitter_s
        rig.want({BATTERY: 5e3}, valid_s=5e3)
        await rig.turns(60.0)
        assert rig.true_w(BATTERY) == pytest.approx(5e3)

        server.fault(Fault.LOCAL_MODE)
        await rig.turns(30.0)
        assert rig.events_of(BATTERY) == ["local-control"]
        assert rig.poller.snapshot().local[row]
        held = rig.reconciler.wishes.held(Quantity.P_SET, [row], rig.poller.snapshot())
        assert held.by[row] == "local control"
        scope = Scope(Level.DEVICE, BATTERY)
        desk = OrderDesk(rig.orders, rig.reconciler)
        seen = await desk.show(Show(scope), "smith")
        assert isinstance(seen, Shown)
        assert "reversion unproven, under local control" in shown_text(seen)
        why = await desk.why(AskWhy(scope, Quantity.P_SET, 5e3, 60.0), "smith")
        assert isinstance(why, WhyNot)
        assert all("local" in [reason.by for reason in reasons] for reasons in (why.person, why.plan))
        since = len(rig.wire)
        rig.want({BATTERY: 7e3}, valid_s=5e3)
        await rig.turns(armed_s)
        assert len(rig.wire) == since
        assert BATTERY not in rig.holding()

        await server.heal()
        await rig.turns(120.0)
        assert rig.events_of(BATTERY) == ["local-control", "remote-control"]
        assert rig.true_w(BATTERY) == pytest.approx(7e3)
        assert not np.any(rig.poller.snapshot().local)

    in_the_field(scenario, tmp_path, devices=(BATTERY,), dispatch=replace(QUICK, validity_s=1e5))
