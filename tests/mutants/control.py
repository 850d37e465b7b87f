"""Faults in guards, authority, tags, modes, stops and the ladder."""

from tests.mutants.fault import Fault

GUARDS = "derms/control/guards.py"
AUTHORITY = "derms/control/authority.py"
PERMISSIVES = "derms/control/permissives.py"
LATCH = "derms/control/latch.py"
MODES = "derms/control/modes.py"
STOPPING = "derms/control/stopping.py"
DEGRADED = "derms/control/degraded.py"
TRIM = "derms/control/trim.py"
CYCLE = "derms/control/cycle.py"

_GUARDS = ("tests/control/test_guards.py",)
_CONNECTIONS = ("tests/control/test_connection_guard.py",)
_AUTHORITY = ("tests/control/test_authority.py",)
_PERMISSIVES = ("tests/control/test_permissives.py",)
_STOPPING = ("tests/control/test_stopping.py",)
_MODES = ("tests/control/test_modes.py",)
_DEGRADED = ("tests/control/test_degraded.py",)
_TRIM = ("tests/control/test_trim.py",)
_CYCLE = ("tests/control/test_cycle.py",)

CONTROL: tuple[Fault, ...] = (
    Fault("the guard of quality is skipped", GUARDS, '    ("quality", quality_guard),\n', "", _GUARDS),
    Fault("the guard of local control is skipped", GUARDS, '    ("local control", local_guard),\n', "", _GUARDS),
    Fault("the guard of the nameplate is skipped", GUARDS, '    ("nameplate", nameplate_guard),\n', "", _GUARDS),
    Fault("the guard of the state of charge is skipped", GUARDS, '    ("state of charge", soc_guard),\n', "", _GUARDS),
    Fault(
        "values that are not good are taken for good",
        GUARDS,
        "good = (given.snapshot.quality == Quality.GOOD) & np.isfinite",
        "good = (given.snapshot.quality != Quality.MISSING) & np.isfinite",
        _GUARDS,
    ),
    Fault(
        "the nameplate of the file counts, not the smaller one",
        GUARDS,
        '    ("device maximum", device_maximum_guard),\n',
        "",
        _GUARDS,
    ),
    Fault(
        "the guard of connections is skipped",
        GUARDS,
        '    ("connection", connection_guard),\n',
        "",
        _CONNECTIONS,
    ),
    Fault(
        "PV that nobody limits counts as it is measured",
        "derms/control/connections.py",
        "high_w = np.where(fleet.is_pv | (~good & gives), rated_w, 0.0)",
        "high_w = np.where(~good & gives, rated_w, 0.0)",
        _CONNECTIONS,
    ),
    Fault(
        "a device that comes down makes room behind its connection at once",
        "derms/control/connections.py",
        "left_w = most_w - sums(at, now_w, len(most_w))",
        "left_w = most_w - sums(at, now_w if to_w is None else np.fmin(now_w, to_w[shares]), len(most_w))",
        _CONNECTIONS,
    ),
    Fault(
        "a limit of PV that is about to end makes room for batteries",
        "derms/field/reach.py",
        "if seen.armed_s + seen.reversion_s < until_s:",
        "if seen.armed_s + seen.reversion_s < 0.0:",
        ("tests/field/test_connection.py",),
    ),
    Fault(
        "shares of a plan forget what connections leave",
        CYCLE,
        "_capped(within_sites(portfolio.devices, portfolio.sites, len(portfolio.hours)), caps[rows])",
        "_capped(portfolio.devices, caps[rows])",
        ("tests/control/test_connection_plans.py",),
    ),
    Fault(
        "no taper towards reserve and ceiling",
        GUARDS,
        """    out_w = np.maximum(stored_wh, 0.0) * fleet.efficiency_frac / hours
    in_w = np.maximum(room_wh, 0.0) / fleet.efficiency_frac / hours
""",
        """    out_w = np.where(stored_wh > 0.0, np.inf, 0.0)
    in_w = np.where(room_wh > 0.0, np.inf, 0.0)
""",
        _GUARDS,
    ),
    Fault(
        "an unknown state of charge is taken for half",
        GUARDS,
        "fleet, soc = given.fleet, given.snapshot.soc_frac",
        "fleet, soc = given.fleet, np.nan_to_num(given.snapshot.soc_frac, nan=0.5)",
        _GUARDS,
    ),
    Fault(
        "a NaN that is wanted is taken for zero",
        GUARDS,
        "wanted = np.isfinite(wanted_w)",
        "wanted_w = np.nan_to_num(wanted_w)\n    wanted = np.isfinite(wanted_w)",
        ("tests/control/test_guards.py::test_what_is_not_commanded_stays_so_and_blames_nobody",),
    ),
    Fault(
        "a guard widens what another has left",
        GUARDS,
        "PowerBounds(np.maximum(self.low_w, low_w), np.minimum(self.high_w, high_w))",
        "PowerBounds(np.minimum(self.low_w, low_w), np.maximum(self.high_w, high_w))",
        _GUARDS,
    ),
    Fault(
        "the clip has its bounds the other way round",
        GUARDS,
        "np.where(bounds.empty, np.nan, np.clip(wanted_w, bounds.low_w, bounds.high_w))",
        "np.where(bounds.empty, np.nan, np.clip(wanted_w, bounds.high_w, bounds.low_w))",
        _GUARDS,
    ),
    Fault("a stale fencing token is accepted", AUTHORITY, "if ticket.token < self.token:", "if False:", _AUTHORITY),
    Fault(
        "the fence follows whoever came last",
        AUTHORITY,
        "return Fence(max(self.token, ticket.token))",
        "return Fence(ticket.token)",
        _AUTHORITY,
    ),
    Fault(
        "the deadline of a request is not checked before the send",
        AUTHORITY,
        "if not now_s < ticket.deadline_s:",
        "if False:",
        _AUTHORITY,
    ),
    Fault(
        "an older claim takes the place of a newer one",
        AUTHORITY,
        "kept[claim.key].ticket.age_key < claim.ticket.age_key",
        "kept[claim.key].ticket.age_key != claim.ticket.age_key",
        _AUTHORITY,
    ),
    Fault(
        "claims never expire",
        AUTHORITY,
        "found = [claim for claim in self.by_key.values() if now_s < claim.until_s]",
        "found = list(self.by_key.values())",
        _AUTHORITY,
    ),
    Fault(
        "a lower rank is not bound by a higher one",
        AUTHORITY,
        "        if claim.rank < rank:\n",
        "        if claim.rank > rank:\n",
        _AUTHORITY,
    ),
    Fault(
        "the lock of another is ignored",
        AUTHORITY,
        "if lock.owner != author and places.overlap",
        "if lock.owner == author and places.overlap",
        _AUTHORITY,
    ),
    Fault(
        "a clearance tag lets devices be energized",
        "derms/domain/tags.py",
        "TagKind.CLEARANCE: frozenset({Act.MANUAL, Act.AUTOMATIC, Act.ENERGIZE}),",
        "TagKind.CLEARANCE: frozenset({Act.MANUAL, Act.AUTOMATIC}),",
        ("tests/control/test_tags.py",),
    ),
    Fault("no permissive asks for tags", PERMISSIVES, "    request,\n    tags,\n", "    request,\n", _PERMISSIVES),
    Fault(
        "a tag bounds nobody's power",
        PERMISSIVES,
        "np.where(nobody, 0.0, np.inf)",
        "np.where(nobody, np.inf, np.inf)",
        _PERMISSIVES,
    ),
    Fault(
        "a selection can be operated twice", PERMISSIVES, "left = cancel(open_, number)", "left = open_", _PERMISSIVES
    ),
    Fault(
        "permissives are not asked again when a selection is operated",
        PERMISSIVES,
        "reasons = (*late, *why_not(found.asked, facts, left))",
        "reasons = late",
        _PERMISSIVES,
    ),
    Fault(
        "a selection never ends",
        PERMISSIVES,
        "late = () if late_s < 0.0 else",
        "late = () if late_s < math.inf else",
        _PERMISSIVES,
    ),
    Fault(
        "whoever comes operates the selection of another",
        PERMISSIVES,
        "    if found.asked.author != author:\n",
        "    if False:\n",
        _PERMISSIVES,
    ),
    Fault(
        "one person releases the latch of a stop",
        LATCH,
        "if first.person.casefold() == who.casefold():",
        "if first.person == person:",
        _STOPPING,
    ),
    Fault("the glass breaks without a reason", LATCH, "or not why.strip():", "or False:", _STOPPING),
    Fault(
        "of two stops the later one alone counts",
        LATCH,
        "        bounds = bounds.narrowed(np.where(rows, way.low_w, -np.inf), np.where(rows, way.high_w, np.inf))\n",
        "        bounds = PowerBounds(np.where(rows, way.low_w, -np.inf), np.where(rows, way.high_w, np.inf))\n",
        _STOPPING,
    ),
    Fault(
        "a feeder gets to AUTO without a scorecard",
        MODES,
        "(ControlMode.SHADOW, ControlMode.AUTO): (*SOUND, good_scorecard),",
        "(ControlMode.SHADOW, ControlMode.AUTO): SOUND,",
        _MODES,
    ),
    Fault(
        "a figure that was not measured meets its mark",
        MODES,
        'return "" if self.least <= value <= self.most else',
        'return "" if not (value < self.least or value > self.most) else',
        _MODES,
    ),
    Fault(
        "the ceiling of the site file is ignored",
        MODES,
        "        if to.level > CEILING[evidence.site].level:\n",
        "        if False:\n",
        _MODES,
    ),
    Fault(
        "a feeder stays in AUTO though its topology is in doubt",
        MODES,
        "if not doubts or area.mode.level <= ControlMode.SHADOW.level:",
        "if not doubts or area.mode.level <= ControlMode.AUTO.level:",
        _MODES,
    ),
    Fault(
        "the highest mode of a device's groups counts",
        MODES,
        "found[rows] = np.minimum(found[rows], area.mode.level)",
        "found[rows] = np.maximum(found[rows], area.mode.level)",
        _MODES,
    ),
    Fault(
        "an observing site lets commands pass",
        MODES,
        "            site is not Mode.OBSERVE\n            and (rank",
        "            True\n            and (rank",
        _MODES,
    ),
    Fault(
        "stages are made without looking at their MW",
        STOPPING,
        'end = max(first + 1, int(np.searchsorted(total_w, done_w + stage_w, side="right")))',
        "end = len(rows) if done_w < stage_w else first + 1",
        _STOPPING,
    ),
    Fault(
        "a device that nobody knows of counts as confirmed",
        STOPPING,
        "    confirmed_rows = wanted & done\n",
        "    confirmed_rows = wanted & (done | ~np.isfinite(reverts_in_s))\n",
        _STOPPING,
    ),
    Fault(
        "a silent device that exports by itself counts as reverting",
        STOPPING,
        "reverting = wanted & ~done & meets & np.isfinite(reverts_in_s)",
        "reverting = wanted & ~done & np.isfinite(reverts_in_s)",
        _STOPPING,
    ),
    Fault(
        "a device that still gives power is confirmed",
        STOPPING,
        "rows: BoolArray = held & ~contradicts",
        "rows: BoolArray = held",
        _STOPPING,
    ),
    Fault(
        "a limit of zero is taken to end charging",
        STOPPING,
        "(np.abs(seen.p_limit_w) <= tolerance_w) & limit_suits",
        "np.abs(seen.p_limit_w) <= tolerance_w",
        _STOPPING,
    ),
    Fault(
        "what nobody knows of counts as there",
        DEGRADED,
        "return not getattr(presence, self.needs) <= self.enter_s",
        "return bool(getattr(presence, self.needs) > self.enter_s)",
        _DEGRADED,
    ),
    Fault("the ladder is climbed at once", DEGRADED, "if now_s - since_s < step.leave_s:", "if False:", _DEGRADED),
    Fault(
        "overload sheds controls",
        DEGRADED,
        "passed = {work: amount for work, amount in asked.items() if work not in POLLS}",
        "passed = {work: min(amount, capacity) for work, amount in asked.items() if work not in POLLS}",
        _DEGRADED,
    ),
    Fault(
        "a measurement of long ago is trimmed to",
        TRIM,
        " and now_s - self.at_s <= AGE_MAX_S",
        "",
        _TRIM,
    ),
    Fault(
        "a stale measurement is trimmed to",
        TRIM,
        "return self.quality is Quality.GOOD and math.isfinite",
        "return math.isfinite",
        _TRIM,
    ),
    Fault(
        "the trim goes beyond the leeway that the feeder bears",
        TRIM,
        "    bounds = bounds.narrowed(-leeway.most_w, leeway.most_w)\n",
        "",
        _TRIM,
    ),
    Fault(
        "the trim goes beyond its authority",
        TRIM,
        "total_w = room.clipped(min(max(total_w, -most_w), most_w))",
        "total_w = room.clipped(total_w)",
        _TRIM,
    ),
    Fault(
        "the trim has no ramp", TRIM, "-ramp_w), ramp_w)", "-math.inf), math.inf)", ("tests/control/test_trim_rate.py",)
    ),
    Fault(
        "devices are let go all at once, without a ramp",
        "derms/control/restoring.py",
        "np.cumsum(change_w[order]) / ramp_w_per_min",
        "change_w[order] / ramp_w_per_min",
        ("tests/control/test_restoring.py",),
    ),
    Fault(
        "a plan goes out that nobody has verified",
        CYCLE,
        "wrong = [] if plan.source is PlanSource.DEFAULTS else _wrong(rung, portfolio, battery, given.forecast)",
        "wrong: list[str] = []",
        _CYCLE,
    ),
    Fault(
        "a last good plan is adopted however old it is",
        CYCLE,
        "elif (now - last.made_at).total_seconds() > settings.last_good_age_max_s:",
        "elif False:",
        _CYCLE,
    ),
    Fault(
        "the look ahead of the feeder refuses no plan",
        CYCLE,
        "        if not findings:\n",
        "        if True:\n",
        _CYCLE,
    ),
)
