"""What differs between real, paced and simulated runs of the same service."""

import random
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from derms.field.disk import SYSTEM_DISK, Disk
from derms.ports import Clock
from derms.service.cadence import Job

Runner = Callable[[tuple[Job, ...]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Time, chance, disk and threads for one process."""

    clock: Clock
    runner: Runner
    """Runs the cadence table."""
    chance: random.Random
    executor: Executor | None = None
    """One worker thread for the engine and the optimizer; None where the loop runs such work in place."""
    plan_deadline_s: float | None = None
    """Time by the clock after which a plan that is not there is given up [s]; None where the clock runs otherwise."""
    disk: Disk = SYSTEM_DISK
    """Under journal and lease."""
    watched: bool = False
    """Memory, clocks and disk are looked at: they are the machine's own."""
