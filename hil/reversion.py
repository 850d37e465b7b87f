"""Reversion timers of SunSpec controls: which point arms which timer, and what holds when it has run out.

Source: SunSpec models 123, 124, 704 and 705, 706, 711, 712; DER Information Model Specification 1.0 (reversion).
A timer starts with its function, starts again whenever a point of its function is written, and stops with it; a
function that is written without a time holds until it is told otherwise.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Timer:
    """One function with a time to live; points by name within the model."""

    model: int
    enable: str
    time: str
    left: str | None = None
    """Shows the time that is left; None in models that do not tell."""
    enable_after: str | None = None
    """Holds what `enable` becomes; None for `rest`."""
    rest: int = 0
    """Value of `enable` with which nothing runs."""
    values: tuple[tuple[str, str], ...] = ()
    """Points of the function, and those that hold what they become."""
    others: tuple[str, ...] = ()
    """More points whose writing is a refresh."""

    @property
    def points(self) -> frozenset[str]:
        """Points whose writing starts the timer again."""
        pairs = (name for pair in self.values for name in pair)
        return frozenset({self.enable, self.time, self.enable_after or self.enable, *pairs, *self.others})


def _of_704(function: str, *values: str) -> Timer:
    return Timer(
        704,
        enable=f"{function}Ena",
        time=f"{function}RvrtTms",
        left=f"{function}RvrtRem",
        enable_after=f"{function}EnaRvrt",
        values=tuple(
            (value, value.replace(function, f"{function}Rvrt") if "." in value else f"{value}Rvrt") for value in values
        ),
    )


TIMERS = (
    _of_704("PFWInj", "PFWInj.PF", "PFWInj.Ext"),
    _of_704("PFWAbs", "PFWAbs.PF", "PFWAbs.Ext"),
    _of_704("WMaxLimPct", "WMaxLimPct"),
    _of_704("WSet", "WSet", "WSetPct"),
    _of_704("VarSet", "VarSet", "VarSetPct"),
    Timer(123, enable="Conn", time="Conn_RvrtTms", rest=1),
    Timer(123, enable="WMaxLim_Ena", time="WMaxLimPct_RvrtTms", others=("WMaxLimPct",)),
    Timer(123, enable="OutPFSet_Ena", time="OutPFSet_RvrtTms", others=("OutPFSet",)),
    Timer(
        123, enable="VArPct_Ena", time="VArPct_RvrtTms", others=("VArWMaxPct", "VArMaxPct", "VArAvalPct", "VArPct_Mod")
    ),
    Timer(124, enable="StorCtl_Mod", time="InOutWRte_RvrtTms", others=("OutWRte", "InWRte")),
    *(
        Timer(model, enable="Ena", time="RvrtTms", left="RvrtRem", others=("AdptCrvReq", "RvrtCrv"))
        for model in (705, 706, 712)
    ),
    Timer(711, enable="Ena", time="RvrtTms", left="RvrtRem", others=("AdptCtlReq", "RvrtCtl")),
)


@dataclass
class Running:
    """The timers that run, with what is left of each [s]."""

    left_s: dict[Timer, float] = field(default_factory=dict)

    def touched(
        self, model: int, written: Collection[str], values: Mapping[str, int], *, restarts: bool = True
    ) -> None:
        """Take a write: `values` are the enabling points and times of the model as they are now, by name.

        Without `restarts` a timer that runs is left as it is.
        """
        for timer in TIMERS:
            if timer.model != model or timer.enable not in values or timer.points.isdisjoint(written):
                continue
            if values[timer.enable] == timer.rest or not values[timer.time]:
                self.left_s.pop(timer, None)
            elif restarts or timer not in self.left_s:
                self.left_s[timer] = float(values[timer.time])

    def passed(self, dt_s: float) -> list[Timer]:
        """Let time pass; returns the timers that have run out, which run no more."""
        for timer in self.left_s:
            self.left_s[timer] -= dt_s
        over = [timer for timer, left_s in self.left_s.items() if left_s <= 0.0]
        for timer in over:
            del self.left_s[timer]
        return over
