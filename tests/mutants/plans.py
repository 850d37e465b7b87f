"""Faults in forecasts, plans and their verifiers, in what the utility's system tells, and in the records."""

from tests.mutants.fault import Fault

VERIFY = "derms/optimize/verify.py"
VERIFY_FLEET = "derms/optimize/verify_fleet.py"
VERIFY_STORES = "derms/optimize/verify_stores.py"
MASTER = "derms/optimize/master.py"
SOLVER = "derms/optimize/solver.py"
GATES = "derms/forecast/gates.py"
INTAKE = "derms/scada/intake.py"
PACKING = "derms/domain/packing.py"
STORE = "derms/historian/store.py"

_VERIFY = ("tests/optimize/test_verify.py",)
_FLEET = (
    "tests/optimize/test_fleet.py::test_the_verifier_passes_the_planners_shares_and_finds_each_thing_that_is_wrong",
)
_STORES = ("tests/optimize/test_verify_stores.py",)
_SOLVER = ("tests/optimize/test_fleet.py::test_a_solver_that_fails_gives_no_plan_and_not_the_last_one",)
_ORDER = ("tests/optimize/test_order.py",)
_GATES = ("tests/forecast/test_gates.py",)
_INTAKE = ("tests/scada/test_intake.py",)
_FILE = ("tests/scada/test_file_scada.py",)
_REPLAY = ("tests/historian/test_replay.py",)
_STORE = ("tests/historian/test_store.py",)

PLANS: tuple[Fault, ...] = (
    Fault(
        "the verifier does not follow the energy of a plan",
        VERIFY,
        "return wrong + _check_energy(plan, battery)",
        "return wrong",
        _VERIFY,
    ),
    Fault(
        "the verifier follows energy without losses",
        VERIFY,
        "    efficiency = battery.efficiency_frac\n",
        "    efficiency = 1.0\n",
        _VERIFY,
    ),
    Fault(
        "the verifier does not look at power",
        VERIFY,
        "    if np.abs(plan.battery_w).max(initial=0.0) > battery.p_rated_w + slack_w:\n",
        "    if False:\n",
        _VERIFY,
    ),
    Fault(
        "the verifier passes what is not finite",
        VERIFY,
        "    if not all(np.isfinite(column).all() for column in columns):\n",
        "    if False:\n",
        _VERIFY,
    ),
    Fault(
        "the verifier does not ask whether net load adds up",
        VERIFY,
        "    if np.abs(balance_w).max(initial=0.0) > slack_w:\n",
        "    if False:\n",
        _VERIFY,
    ),
    Fault(
        "the verifier passes voltages that a plan makes worse",
        VERIFY,
        "        if excess_pu > EXCESS_TOLERANCE_PU:\n",
        "        if False:\n",
        _VERIFY,
    ),
    Fault(
        "the verifier passes overloads",
        VERIFY,
        "        if overload > OVERLOAD_TOLERANCE:\n",
        "        if False:\n",
        _VERIFY,
    ),
    Fault(
        "a feeder without a solution is no finding",
        VERIFY,
        "            findings.append(FeederFinding(point, text, np.nan, np.zeros(planned_w.shape[1])))\n",
        "",
        _VERIFY,
    ),
    Fault(
        "shares beyond the power of a store pass",
        VERIFY_STORES,
        '    if beyond.any():\n        wrong.append(f"{np.count_nonzero(beyond)} stores beyond their power")\n',
        "",
        _FLEET,
    ),
    Fault(
        "shares beyond the energy of a store pass",
        VERIFY_STORES,
        "    if outside.any():\n",
        "    if False:\n",
        _STORES,
    ),
    Fault(
        "stores that are not available are commanded",
        VERIFY_STORES,
        "    if power_w[~devices.available].any():\n",
        "    if False:\n",
        _STORES,
    ),
    Fault(
        "a feeder beyond its limits passes",
        VERIFY_FLEET,
        '        if f"feeder {feeder} power" not in named\n',
        "        if False\n",
        _FLEET,
    ),
    Fault(
        "a network row beyond its limits passes",
        VERIFY_FLEET,
        "        if rows.names[row] not in named\n",
        "        if False\n",
        _STORES,
    ),
    Fault(
        "what sites draw is counted without their load",
        VERIFY_STORES,
        "sites.import_max_w[:, None] - net_w",
        "sites.import_max_w[:, None] + 0.0 * net_w",
        _STORES,
    ),
    Fault(
        "a plan is accepted from a solver that came to its limit",
        SOLVER,
        "        if status == piqp.PIQP_SOLVED:\n",
        "        if status in (piqp.PIQP_SOLVED, piqp.PIQP_MAX_ITER_REACHED):\n",
        _SOLVER,
    ),
    Fault(
        "what comes first is weighed again once it has been found",
        MASTER,
        "            bounded.put(AIM_VARIABLES[aim], high=best_pu + KEPT_PU)\n",
        "",
        _ORDER,
    ),
    Fault(
        "limits are as light as the rest while what comes first is found",
        SOLVER,
        "            self.c[place] = self._above[place] = cost\n",
        "            self.c[place] = cost\n",
        _ORDER,
    ),
    Fault(
        "a plan is accepted from the second solver, whatever that calls it",
        SOLVER,
        '    if str(solution.status) != "Solved":\n',
        "    if not len(solution.x):\n",
        _SOLVER,
    ),
    Fault(
        "the gate of units is off",
        GATES,
        "LOAD = (*_FIRST, (Reason.UNITS, _units), (Reason.CLIMATOLOGY",
        "LOAD = (*_FIRST, (Reason.CLIMATOLOGY",
        _GATES,
    ),
    Fault(
        "the gate of the clear sky is off",
        GATES,
        ", (Reason.UNITS, _units), (Reason.CLEAR_SKY, _above))",
        ", (Reason.UNITS, _units))",
        _GATES,
    ),
    Fault("the gate of old samples is off", GATES, "    (Reason.LATE, _late),\n", "", _GATES),
    Fault(
        "no gate refuses anything",
        GATES,
        "        codes[found] = 1 + tuple(Reason).index(reason)\n",
        "        codes[found] = 0\n",
        _GATES,
    ),
    Fault(
        "a value of the utility's system ages by the time at which we read it",
        INTAKE,
        "    if max(now_s - value.received_s, source_age_s) > limits.stale_after_s:\n",
        "    if now_s - value.received_s > limits.stale_after_s:\n",
        _INTAKE,
    ),
    Fault(
        "a value of the utility's system ages by the wall clock alone",
        INTAKE,
        "    if max(now_s - value.received_s, source_age_s) > limits.stale_after_s:\n",
        "    if source_age_s > limits.stale_after_s:\n",
        _INTAKE,
    ),
    Fault(
        "a time in the future is believed",
        INTAKE,
        "    if -age_s > limits.ahead_max_s:\n",
        "    if False:\n",
        _INTAKE,
    ),
    Fault(
        "a refused value replaces a good one",
        INTAKE,
        "return before if once_good else replace",
        "return new if once_good else replace",
        _INTAKE,
    ),
    Fault(
        "what the source calls bad is taken for good",
        INTAKE,
        "value = PointValue(number, believed, sample.at, now, now_s)",
        "value = PointValue(number, Quality.GOOD, sample.at, now, now_s)",
        _INTAKE,
    ),
    Fault(
        "a value beyond its bounds is believed",
        INTAKE,
        "    if value < point.low or value > point.high:\n",
        "    if False:\n",
        _INTAKE,
    ),
    Fault(
        "a leap is believed at its first telling",
        INTAKE,
        '    return f"{value.value:g} after {before.value:g} is a leap',
        '    return "" and f"{value.value:g} after {before.value:g} is a leap',
        ("tests/scada/test_meter.py",),
    ),
    Fault(
        "the check sum of a stored decision is not checked",
        PACKING,
        "    if zlib.crc32(_LENGTHS.pack(text_length, length) + body) != crc or length > RAW_MAX_BYTES:\n",
        "    if length > RAW_MAX_BYTES:\n",
        _REPLAY,
    ),
    Fault(
        "what waits for the database is forgotten when a flush fails",
        STORE,
        "            with _translated(), self._engine.begin() as connection:\n                if samples:\n",
        "            self._samples, self._outcomes = [], []\n"
        "            with _translated(), self._engine.begin() as connection:\n                if samples:\n",
        _STORE,
    ),
    Fault(
        "a value that is missing is stored as zero",
        STORE,
        "        stored[np.isnan(values)] = None\n",
        "        stored[np.isnan(values)] = 0.0\n",
        _STORE,
    ),
)
