"""A reference device: any chain of SunSpec models, with sensible values, that obeys what is written to it.

What it does not have is physics beyond the obvious: active power follows limits, setpoints, and leave to run at once.
Time passes only through `tick`. Source: SunSpec Device Information Model Specification 1.2, 6.5 (a value that was
written is read back at once); models 123, 124, 701-715, 802.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from drivers.sunspec.models import Value, encode_point
from hil import adoption, specimen_values
from hil.fault_kinds import Fault
from hil.registers import BASE, ILLEGAL_ADDRESS, ILLEGAL_VALUE, Bank, Place
from hil.reversion import TIMERS, Running, Timer
from hil.unit import BankUnit

MODELS = (1, 101, 102, 103, 111, 112, 113, 120, 121, 122, 123, 124, 160, *range(201, 205), *range(211, 215),
          *range(701, 716), 802, 803, 804)  # fmt: skip
"""Every model that a specimen can have."""
_TRIP_MODELS = range(707, 711)
_INVERTERS = (101, 102, 103, 111, 112, 113, 701)
_AVAILABLE_FRAC = 0.8
"""Of the rating: what the sun gives."""
_OFF, _RUNNING, _THROTTLED = 0, 3, 4
_STOP = 0
_WATTS = 1
_CHARGE_BIT, _DISCHARGE_BIT = 1, 2

_RANGES = {
    **dict.fromkeys(("123.WMaxLimPct", "124.MinRsvPct", "704.WMaxLimPct", "704.WMaxLimPctRvrt"), (0.0, 100.0)),
    **dict.fromkeys(("123.VArWMaxPct", "123.VArMaxPct", "123.VArAvalPct", "123.OutPFSet"), (-100.0, 100.0)),
    **dict.fromkeys(("124.OutWRte", "124.InWRte", "704.WSetPct", "704.WSetPctRvrt"), (-100.0, 100.0)),
    **dict.fromkeys(("704.VarSetPct", "704.VarSetPctRvrt"), (-100.0, 100.0)),
    **dict.fromkeys(("704.WSet", "704.WSetRvrt", "704.VarSet", "704.VarSetRvrt"), (-10_000.0, 10_000.0)),
    **{f"704.PFW{name}.PF": (0.0, 1.0) for name in ("Inj", "InjRvrt", "Abs", "AbsRvrt")},
    **dict.fromkeys(("702.WMax", "702.VAMax", "121.WMax", "121.VAMax", "124.WChaMax"), (0.0, 10_000.0)),
    **dict.fromkeys(("802.SocRsvMax", "802.SoCRsvMin"), (0.0, 100.0)),
    **dict.fromkeys(("705.AdptCrvReq", "706.AdptCrvReq", "711.AdptCtlReq", "712.AdptCrvReq"),
                    (1.0, 1.0 + specimen_values.SPARE_CURVES)),
    **dict.fromkeys(("705.RvrtCrv", "706.RvrtCrv", "711.RvrtCtl", "712.RvrtCrv"),
                    (0.0, 1.0 + specimen_values.SPARE_CURVES)),
}  # fmt: skip
"""What numbers may be written, in the point's unit; any number for points that are not here."""


class Reverts(StrEnum):
    """What makes a device let go of what it was told."""

    BY_TIMER = "A"
    BY_HEARTBEAT = "B"
    """When the controller's heartbeat (715, 802) no longer changes; timers are taken and ignored."""
    NEVER = "C"


class ReadOnly(StrEnum):
    """What becomes of a write over read-only points together with others."""

    REFUSED = "refused"
    """The whole write is refused (exception 2)."""
    KEPT = "kept"
    """It is acknowledged, and the read-only points keep what they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a specimen behaves."""

    reverts: Reverts = Reverts.BY_TIMER
    read_only: ReadOnly = ReadOnly.REFUSED
    heartbeat_s: float = 10.0
    """Patience with a controller's heartbeat."""
    adopt_s: float = 1.0
    """Time that it takes to adopt a curve."""


class Specimen(BankUnit):
    """One reference device; see the module's text."""

    def __init__(
        self,
        models: Sequence[int] = MODELS,
        *,
        manner: Manner | None = None,
        serial: str = "SIM-SPECIMEN",
        base: int = BASE,
    ) -> None:
        """`models` in the order of the chain; each once, the common model (1) first. Raises ValueError."""
        wrong = [model for model in models if model not in MODELS]
        if wrong or len(set(models)) != len(models) or tuple(models[:1]) != (1,):
            raise ValueError(f"models {list(models)}: give 1 first, then each once, of {list(MODELS)}")
        chain = [specimen_values.laid_out(model) for model in models]
        scales = {name: value for model in chain for name, value in specimen_values.exponents(model).items()}
        bank = Bank(1, chain, scales)
        for model in chain:
            for point in model.points.values():
                if point.name not in ("ID", "L") and point.type != "sunssf":
                    bank.set_raw(0, f"{model.id}.{point.name}", specimen_values.initial(model, point, serial))
        super().__init__(bank, 0, on_write=self._obey, base=base)
        self.models = tuple(models)
        self.manner = manner or Manner()
        self._timers = Running()
        self._adopting: dict[int, float] = {}
        """Seconds until a model's request is decided."""
        self._silence_s: float | None = None
        """Since the controller's heartbeat changed; None before the first one."""
        self._clock_s = 0.0
        self._injected_wh = 0.0

    def value(self, name: str) -> float:
        """A number in the point's unit, `704.WMaxLimPct`; NaN when it is not implemented."""
        return float(self.bank.get(name)[0])

    def put(self, name: str, value: float) -> None:
        """Set a number in the point's unit; NaN for `not implemented`."""
        self.bank.put(name, value)

    def admitted(self, address: int, data: bytes) -> bytes | int:
        register = self._register(address)
        places = self.bank.covered(register, len(data) // 2)
        if not places:
            return ILLEGAL_ADDRESS
        kept = bytearray(data)
        for place in places:
            span = slice(2 * (place.register - register), 2 * (place.register - register + place.point.size))
            held = self._held(place)
            if self._is_read_only(place):
                if self.manner.read_only is ReadOnly.REFUSED:
                    return ILLEGAL_ADDRESS
                kept[span] = held
            elif held == encode_point(place.point, None):  # not implemented: may only be written back as it is
                if data[span] != held:
                    return ILLEGAL_ADDRESS
            elif not self._is_allowed(place, data[span]):
                return ILLEGAL_VALUE
        return bytes(kept)

    def tick(self, dt_s: float) -> None:
        """Let time pass: timers, heartbeats, curves that are being adopted, power."""
        before_s, self._clock_s = self._clock_s, self._clock_s + dt_s
        self._beat(int(self._clock_s) - int(before_s))
        self._decide_curves(dt_s)
        for timer in self._timers.passed(dt_s):
            if self.manner.reverts is Reverts.BY_TIMER and self.failing is not Fault.IGNORE_REVERSION:
                self._revert(timer)
        self._watch_controller(dt_s)
        self._show_timers()
        if self.failing is not Fault.LOCAL_MODE:
            self._follow()
        self._count(dt_s)

    def restart(self) -> None:
        self._timers = Running()
        self._adopting.clear()
        self._silence_s = None
        super().restart()

    def _held(self, place: Place) -> bytes:
        at = 2 * place.register
        return bytes(self.bank.row(0)[at : at + 2 * place.point.size])

    def _is_read_only(self, place: Place) -> bool:
        """Trip settings and curve 1 are, too."""
        family = adoption.FAMILIES.get(place.model)
        active = family is not None and place.point.name.startswith(family.curve(1))
        return active or not place.point.writable or place.model in _TRIP_MODELS

    def _is_allowed(self, place: Place, data: bytes) -> bool:
        if data == encode_point(place.point, None):
            return False
        name = f"{place.model}.{place.point.name}"
        symbols = specimen_values.described(place.model, place.point.name).get("symbols")
        if symbols and place.point.type.startswith("enum"):
            return int.from_bytes(data, "big") in [symbol["value"] for symbol in symbols]
        low, high = _RANGES.get(name, (float("-inf"), float("inf")))
        signed = place.point.type.startswith("int")
        number = int.from_bytes(data, "big", signed=signed) * self.bank[name].factor
        return low - 1e-9 <= number <= high + 1e-9

    def _obey(self, row: int, model: int, offset: int, data: bytes) -> None:
        first = self.bank.start[model] + offset
        written = {place.point.name for place in self.bank.covered(first, len(data) // 2) if place.model == model}
        if self.manner.reverts is Reverts.BY_TIMER:
            self._arm(model, written)
        family = adoption.FAMILIES.get(model)
        if family is not None and family.request in written:
            self.put(f"{model}.{family.result}", adoption.IN_PROGRESS)
            self._adopting[model] = self.manner.adopt_s
        if not written.isdisjoint({"ControllerHb", "CtrlHb"}):
            self._silence_s = 0.0
        self._show_timers()

    def _arm(self, model: int, written: set[str]) -> None:
        mine = [timer for timer in TIMERS if timer.model == model]
        values = {name: int(self._raw(model, name) or 0) for timer in mine for name in (timer.enable, timer.time)}
        self._timers.touched(model, written, values, restarts=self.failing is not Fault.EARLY_REVERSION)

    def _raw(self, model: int, name: str) -> Value | None:
        return self.bank.raw(0, f"{model}.{name}")

    def _copy(self, model: int, source: str, target: str) -> None:
        self.bank.set_raw(0, f"{model}.{target}", self._raw(model, source))

    def _revert(self, timer: Timer) -> None:
        """Give one function up, as it was told to or by switching it off."""
        for value, reverted in timer.values:
            self._copy(timer.model, reverted, value)
        family = adoption.FAMILIES.get(timer.model)
        spare = int(self._raw(timer.model, family.reverted) or 0) if family else 0
        if family and spare > 1:
            self._adopt(timer.model, family, spare)
        elif timer.enable_after:
            self._copy(timer.model, timer.enable_after, timer.enable)
        else:
            self.bank.set_raw(0, f"{timer.model}.{timer.enable}", timer.rest)

    def _show_timers(self) -> None:
        for timer in TIMERS:
            if timer.left and timer.model in self.models:
                left_s = self._timers.left_s.get(timer, 0.0)
                self.put(f"{timer.model}.{timer.left}", -(-left_s // 1.0))

    def _decide_curves(self, dt_s: float) -> None:
        for model in list(self._adopting):
            self._adopting[model] -= dt_s
            if self._adopting[model] <= 0.0:
                del self._adopting[model]
                family = adoption.FAMILIES[model]
                done = self._adopt(model, family, int(self._raw(model, family.request) or 0))
                self.put(f"{model}.{family.result}", adoption.COMPLETED if done else adoption.FAILED)

    def _adopt(self, model: int, family: adoption.Family, number: int) -> bool:
        """Make curve 1 a copy of another one; False, and no change, for a curve that is not valid."""
        prefix = f"{model}.{family.curve(number)}"
        names = [name.removeprefix(prefix) for name in self.bank.names() if name.startswith(prefix)]
        curve = {name: self.bank.raw(0, prefix + name) for name in names}
        points = int(self._raw(model, "NPt") or 0) if family.axis else 0
        if not adoption.is_valid(family, curve, points):
            return False
        for name, value in curve.items():
            if name != "ReadOnly":
                self.bank.set_raw(0, f"{model}.{family.curve(1)}{name}", value)
        return True

    def _beat(self, beats: int) -> None:
        for name, highest in (("715.DERHb", 0xFFFF_FFFF), ("802.Hb", 0xFFFF)):
            if self.bank.has(name):
                self.put(name, (self.value(name) + beats) % highest)

    def _watch_controller(self, dt_s: float) -> None:
        if self._silence_s is None or self.manner.reverts is not Reverts.BY_HEARTBEAT:
            return
        self._silence_s += dt_s
        if self._silence_s >= self.manner.heartbeat_s:
            self._silence_s = None
            for timer in TIMERS:
                mine = timer.model in self.models and timer.model not in adoption.FAMILIES
                if mine and self._raw(timer.model, timer.enable) != timer.rest:
                    self._revert(timer)

    def _is(self, name: str, value: int) -> bool:
        return self.bank.has(name) and self.bank.raw(0, name) == value

    def _power_w(self) -> float:
        """Active power that the controls leave [W]."""
        if self._is("703.ES", 0) or self._is("123.Conn", 0) or self._is("715.OpCtl", _STOP):
            return 0.0
        rated_w = specimen_values.P_RATED_W
        p_w = _AVAILABLE_FRAC * rated_w
        if self._is("704.WSetEna", 1):
            watts = self._is("704.WSetMod", _WATTS)
            p_w = self.value("704.WSet") if watts else self.value("704.WSetPct") / 100.0 * rated_w
        mode = int(self.bank.raw(0, "124.StorCtl_Mod") or 0) if self.bank.has("124.StorCtl_Mod") else 0
        if mode & _CHARGE_BIT:
            p_w = max(p_w, -self.value("124.InWRte") / 100.0 * rated_w)
        if mode & _DISCHARGE_BIT:
            p_w = min(p_w, self.value("124.OutWRte") / 100.0 * rated_w)
        for enable, limit in (("704.WMaxLimPctEna", "704.WMaxLimPct"), ("123.WMaxLim_Ena", "123.WMaxLimPct")):
            if self._is(enable, 1):
                p_w = min(p_w, self.value(limit) / 100.0 * rated_w)
        return p_w

    def _follow(self) -> None:
        """Show the power in every inverter model, in all its phases."""
        p_w = self._power_w()
        for model in _INVERTERS:
            if model in self.models:
                self.put(f"{model}.W", p_w)
        if 701 in self.models:
            for phase in ("L1", "L2", "L3"):
                self.put(f"701.W{phase}", p_w / 3.0)
            throttled = _THROTTLED if p_w < _AVAILABLE_FRAC * specimen_values.P_RATED_W else _RUNNING
            self.put("701.InvSt", throttled if p_w else _OFF)
            self.put("701.ConnSt", float(not (self._is("703.ES", 0) or self._is("123.Conn", 0))))

    def _count(self, dt_s: float) -> None:
        """Let the meter of what was injected run."""
        if 701 in self.models:
            self._injected_wh += max(self.value("701.W"), 0.0) * dt_s / 3600.0
            whole_wh = self._injected_wh // 1.0
            self._injected_wh -= whole_wh
            self.put("701.TotWhInj", self.value("701.TotWhInj") + whole_wh)
