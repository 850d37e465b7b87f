"""The conformance cases in their order, and the run of them: one result per case, and everything put back."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from derms.domain.certificate import CaseResult, CaseState, Certificate, ReversionClass
from derms.errors import FieldError
from drivers.commission import curves, reading, reversion, writing
from drivers.commission.subject import COMMON, Subject
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
    left_behind: str
    """What could not be put back; empty when everything was."""

    @property
    def good(self) -> bool:
        """Nothing failed, and nothing was left behind."""
        return not self.left_behind and all(result.state is not CaseState.FAILED for result in self.results)


async def run_cases(subject: Subject, *, write: bool, cases: Sequence[Case] = CASES) -> Outcome:
    """Run the cases on a discovered device, each followed by the way back, also when it is cancelled.

    Without `write` the cases that write are not run.
    """
    results: dict[str, tuple[CaseResult, float | None]] = {}
    left: list[str] = []
    for number, case in enumerate(cases, start=1):
        subject.say(f"{number}/{len(cases)} {case.name} {case.title}")
        began_s = subject.clock.monotonic_s()
        if case.does and not write:
            verdict = Verdict(CaseState.NOT_RUN, "writes to the device: run it with --write")
        else:
            verdict, remains = await _run(subject, case)
            left += [remains] if remains else []
        took_s = subject.clock.monotonic_s() - began_s
        result = CaseResult(case.name, case.title, verdict.state, verdict.text, round(took_s, 3))
        results[case.name] = (result, verdict.reversion_s)
    proven, measured_s = reversion.classify(results)
    return Outcome(tuple(result for result, _ in results.values()), proven, measured_s, "; ".join(left))


async def _run(subject: Subject, case: Case) -> tuple[Verdict, str]:
    """The verdict of one case and what it left behind."""
    remains = ""
    try:
        verdict = await case.run(subject)
    except FieldError as error:
        verdict = failed(str(error))
    finally:
        remains = await subject.restore()
        if remains:
            subject.tell(f"not put back: {remains}")
    return (failed(f"not put back: {remains}") if remains else verdict), remains


def fingerprint(chain: Chain) -> str:
    """A short hash of the models of a device and their lengths, in order."""
    layout = ",".join(f"{place.model_id}:{place.size}" for place in chain.places)
    return hashlib.blake2b(layout.encode(), digest_size=8).hexdigest()


async def certify(subject: Subject, outcome: Outcome, *, now: datetime, tool: str) -> Certificate:
    """The certificate of a device for what a run found."""
    common = await subject.model(COMMON)
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
