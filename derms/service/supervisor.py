"""The supervisor: the one place that catches whatever a job did not expect, says so once, and lets the rest go on."""

from collections.abc import Callable

from derms.domain.alarm import Event, Severity
from derms.ports import Clock
from derms.service.cadence import Action, Job


class Supervisor:
    """Wraps jobs of the cadence table; a job that fails is an alarm once, and is tried again when next due."""

    def __init__(self, clock: Clock, on_event: Callable[[Event], None]) -> None:
        self._clock = clock
        self._on_event = on_event
        self.failing: set[str] = set()
        """Names of jobs whose last run failed."""
        self.ended = 0
        """Runs of jobs that have come to their end, whichever."""

    def guarded(self, job: Job) -> Job:
        """The same job, with its failures caught here."""
        return Job(job.name, job.trigger, self._guarded(job.name, job.action))

    def _guarded(self, name: str, action: Action) -> Action:
        async def run() -> None:
            try:
                await action()
            except Exception as error:  # noqa: BLE001 - the supervisor is where the unexpected ends
                self._failed(name, error)
            else:
                self._worked(name)
            self.ended += 1

        return run

    def _failed(self, name: str, error: Exception) -> None:
        if name not in self.failing:
            self.failing.add(name)
            text = f"job {name} failed: {type(error).__name__}: {error}"
            self._on_event(Event(self._clock.utc(), Severity.ALARM, name, "job-failed", text))

    def _worked(self, name: str) -> None:
        if name in self.failing:
            self.failing.discard(name)
            self._on_event(Event(self._clock.utc(), Severity.INFO, name, "job-back", f"job {name} works again"))
