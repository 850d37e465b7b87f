"""The conformance cases in their order, and the run of them: one result per case, and everything put back."""

import asyncio
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from derms.domain.certificate import CaseResult, CaseState, Certificate, ReversionClass
from derms.errors import FieldError
from drivers.commission import company, curves, reading, reversion, writing
from drivers.commission.subject import APART, Subject
from drivers.commission.verdict import Case, Verdict, failed
from drivers.sunspec.scan import Chain

CASES: Sequence[Case] = (
    Case("DEV-1", "General discovery", reading.general_discovery),
    Case("DEV-2", "Model 1", reading.common_model),
    Case("TCP-1", "TCP interface", reading.tcp_interface),
    Case("TCP-2", "Partial request", reading.partial_request),
    Case("TCP-3", "Multiple TCP packets", reading.multiple_packets),
    Case("MOD-1", "Model implementation", reading.implementation),
    Case("MOD-2", "Model read", reading.model_read),
    Case("SF", "Scale factors", reading.scale_factors),
    Case("MOD-3", "Point write", writing.point_write, "moves values and times of functions that are off by one step"),
    Case("REJ", "Rejection", writing.rejection, "tries writes that the device must refuse"),
    Case("CRV-1", "Curve 1", curves.curve_one),
    Case("CRV-2", "Apply settings", curves.apply_settings, "adopts the active curves with another response time"),
    Case("CRV-3", "Apply settings error", curves.apply_error, "asks for the adoption of a curve that does not exist"),
    Case("REV-1", "Reversion time-out", reversion.timeout, "limits power to 90 % for 10 s"),
    Case("REV-2", "Reversion time update", reversion.time_update, "limits power to 90 % for 25 s"),
    Case("REV-3", "Reversion cancel", reversion.cancel, "limits power to 90 % for 20 s"),
    Case("HB", "Heartbeat loss", reversion.heartbeat_loss, "limits power to 90 % for up to 65 s"),
)
"""In the order in which they run: what reads comes before what writes, what may disturb comes last."""


@dataclass(frozen=True)
class Outcome:
    """All results of a run, and what they prove."""

    results: tuple[CaseResult, ...]
    reversion: ReversionClass
    reversion_s: float
    left_behind: str = ""
    """What could not be put back; empty when everything was."""
    company: str = ""
    """Who else was at work on the device; empty when nobody was."""
    broken: str = ""
    """Name of the case in which the device was lost; empty when it never was."""
    interrupted: str = ""
    """Name of the case in which the run was cancelled; empty when it was not."""

    @property
    def whole(self) -> bool:
        """Whether the run came to its end, alone with the device: only then does it prove anything."""
        return not (self.broken or self.interrupted or self.company)

    @property
    def good(self) -> bool:
        """Nothing failed, and nothing was left behind."""
        failed_any = any(result.state is CaseState.FAILED for result in self.results)
        return self.whole and not self.left_behind and not failed_any


@dataclass
class _Run:
    """A run of cases under way."""

    subject: Subject
    before: company.Settings | None = None
    """What stood in the device before the first case that writes."""
    left: list[str] = field(default_factory=list)
    company: list[str] = field(default_factory=list)
    broken: str = ""
    interrupted: str = ""

    @property
    def stopped(self) -> str:
        """Why no more cases are run; empty while they are."""
        if self.interrupted:
            return f"the run was interrupted in {self.interrupted}"
        return f"the device was lost in {self.broken}" if self.broken else ""

    async def verdict(self, case: Case) -> Verdict:
        """Run one case and put everything back, also when it is cancelled, be it on the way back."""
        error = ""
        try:
            if case.does and self.before is None:
                await self._look_before()
            verdict = await case.run(self.subject)
        except asyncio.CancelledError:
            self.interrupted = case.name
            verdict = Verdict(CaseState.NOT_RUN, "interrupted")
        except FieldError as caught:
            error = str(caught)
            verdict = failed(error)
        back = asyncio.ensure_future(self._back(case, verdict, unsure=bool(error)))
        while not back.done():
            try:
                await asyncio.shield(back)
            except asyncio.CancelledError:
                self.interrupted = case.name
        return back.result()

    async def _back(self, case: Case, verdict: Verdict, *, unsure: bool) -> Verdict:
        """Put back what a case has changed, and see whether the device is there and nobody else was."""
        remains = await self.subject.restore()
        if remains:
            self.subject.tell(f"not put back: {remains}")
            self.left.append(remains)
            verdict = failed(f"not put back: {remains}")
        lost = await self.subject.lost() if (remains or unsure) and not self.interrupted else ""
        if lost:
            self.broken = case.name
            return failed("broke off: " + (remains or lost))
        return verdict if remains or self.interrupted or not case.does else await self._alone(case, verdict)

    async def _look_before(self) -> None:
        self.before = await company.settings(self.subject)
        if found := company.in_use(self.before):
            self.company.append(f"in use, and not by this test: {found}")

    async def _alone(self, case: Case, verdict: Verdict) -> Verdict:
        """The verdict, unless something changed in the device that no case has changed."""
        try:
            now = await company.settings(self.subject)
        except FieldError as error:
            return failed(str(error))
        found = APART.join(filter(None, (verdict.company, company.changed(self.before or {}, now))))
        self.before = now
        if not found:
            return verdict
        self.company.append(f"in {case.name} {found}")
        return failed(f"another master is at work on the device: {found}; {verdict.text}")


async def run_cases(subject: Subject, *, write: bool, cases: Sequence[Case] = CASES) -> Outcome:
    """Run the cases on a discovered device, each followed by the way back.

    Without `write` the cases that write are not run. When the device is lost, or the run is cancelled, the cases so
    far are the outcome; whoever calls sees to it that a cancelled run ends.
    """
    run = _Run(subject)
    results: dict[str, tuple[CaseResult, float | None]] = {}
    for number, case in enumerate(cases, start=1):
        began_s = subject.clock.monotonic_s()
        if run.stopped:
            verdict = Verdict(CaseState.NOT_RUN, run.stopped)
        elif case.does and not write:
            verdict = Verdict(CaseState.NOT_RUN, "writes to the device: run it with --write")
        else:
            subject.tell(f"{number}/{len(cases)} {case.name} {case.title}")
            verdict = await run.verdict(case)
        took_s = subject.clock.monotonic_s() - began_s
        result = CaseResult(case.name, case.title, verdict.state, verdict.text, round(took_s, 3))
        results[case.name] = (result, verdict.reversion_s)
    proven, measured_s = (ReversionClass.UNPROVEN, math.nan) if run.stopped else reversion.classify(results)
    return Outcome(
        tuple(result for result, _ in results.values()),
        proven,
        measured_s,
        left_behind=APART.join(run.left),
        company=APART.join(run.company),
        broken=run.broken,
        interrupted=run.interrupted,
    )


def fingerprint(chain: Chain) -> str:
    """A short hash of the models of a device and their lengths, in order."""
    layout = ",".join(f"{place.model_id}:{place.size}" for place in chain.places)
    return hashlib.blake2b(layout.encode(), digest_size=8).hexdigest()


def certify(subject: Subject, outcome: Outcome, *, now: datetime, tool: str) -> Certificate:
    """The certificate of a device for what a run found."""
    common = subject.common
    assert common is not None, "the device was discovered"
    return Certificate(
        manufacturer=common.text("Mn"),
        model=common.text("Md"),
        version=common.text("Vr"),
        serial=common.text("SN"),
        fingerprint=fingerprint(subject.chain),
        issued_at=now,
        reversion=outcome.reversion,
        reversion_s=round(outcome.reversion_s, 2) if math.isfinite(outcome.reversion_s) else math.nan,
        tool=tool,
        cases=outcome.results,
    )
