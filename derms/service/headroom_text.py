"""What people read of the desk: what the fleet could do, and what is asked of it."""

from collections.abc import Iterable

from derms.domain.desk import Headroom, Reach
from derms.link.desk import ShownDesk
from derms.service.words import kw


def headroom_text(found: Headroom | None) -> Iterable[str]:
    """What the fleet could still do."""
    if found is None:
        return
    sure, silent = found.answers.confidence_frac, found.answers.silent_frac
    yield f"beside the plan batteries could do; sure is {sure:.0%}, if each stays silent with {silent:.0%}"
    yield from (_offer(offer.lasting_h, offer.beside) for offer in found.offers)
    give, take = found.energy_up_wh / 1e3, found.energy_down_wh / 1e3
    yield f"  energy reserve: {give:.0f} kWh to give, {take:.0f} kWh to take"


def desk_lines(shown: ShownDesk) -> Iterable[str]:
    """How things stand at the desk."""
    order = shown.order
    if order is None:
        yield "the fleet follows the schedule" + ("" if shown.planned else " with the next plan")
    else:
        waits = "" if shown.planned else "; not in the plan yet"
        yield f"{order}, {order.author}, another {shown.left_s:.0f} s{waits}"
    yield from (f"  {reason.by}: {reason.text}" for reason in shown.against)
    if shown.headroom is None:
        yield "what batteries could do is not known: there is no plan of the optimizer"
        return
    yield f"as of the plan of {shown.age_s:.0f} s ago"
    yield from headroom_text(shown.headroom)
    yield "instead of the plan"
    yield from (_offer(offer.lasting_h, offer.instead) for offer in shown.headroom.offers)


def _offer(lasting_h: float, reach: Reach) -> str:
    time = f"{lasting_h * 60.0:.0f} min" if lasting_h < 1.0 else f"{lasting_h:g} h"
    up = f"up {kw(reach.up_w)} (sure {kw(reach.up_sure_w)})"
    return f"  for {time}: {up}, down {kw(reach.down_w)} (sure {kw(reach.down_sure_w)})"
