"""Faults on the way to devices: frames, links, registers, identities."""

from tests.mutants.fault import Fault

FRAMES = "drivers/modbus/frames.py"
LINK = "drivers/modbus/link.py"
SESSION = "drivers/modbus/session.py"
CODEC = "drivers/sunspec/codec.py"
CONTROL = "drivers/sunspec/control.py"
DRIVER = "drivers/sunspec/driver.py"
GATHER = "drivers/sunspec/gather.py"

_ANSWERS = ("tests/drivers/test_modbus_answers.py",)
_LINK = ("tests/drivers/test_modbus_link.py",)
_RTU = ("tests/drivers/test_modbus_rtu.py",)
_SESSION = ("tests/drivers/test_modbus_session.py",)
_CODEC = ("tests/drivers/test_sunspec_codec.py",)
_DRIVER = ("tests/drivers/test_sunspec_driver.py",)
_CONTROL = ("tests/drivers/test_sunspec_control.py",)
_TELEMETRY = ("tests/drivers/test_sunspec_telemetry.py",)
_LATE = ("tests/drivers/test_modbus_session.py::test_late_answer_of_one_unit_is_known_by_its_id_and_dropped",)

DRIVERS: tuple[Fault, ...] = (
    Fault(
        "the unit of an answer is not checked",
        FRAMES,
        '            ("protocol id", protocol, 0),\n            ("unit", unit, question.unit),\n',
        '            ("protocol id", protocol, 0),\n',
        _ANSWERS,
    ),
    Fault(
        "the protocol id of an answer is not checked",
        FRAMES,
        '            ("protocol id", protocol, 0),\n',
        "",
        _ANSWERS,
    ),
    Fault(
        "the function code of an answer is not checked",
        FRAMES,
        '            ("function code", function, function if refused else question.function),\n'
        '            ("frame length",',
        '            ("frame length",',
        _ANSWERS,
    ),
    Fault(
        "the length of an answer is not checked",
        FRAMES,
        '            ("frame length", length, size - _MBAP_UNCOUNTED),\n',
        "",
        _ANSWERS,
    ),
    Fault(
        "byte count and echo of an answer are not checked",
        FRAMES,
        'rest_due = b"" if refused else question.answer[_MBAP.size - 2 :]',
        'rest_due = b""',
        _ANSWERS,
    ),
    Fault(
        "the checksum of a serial line is not checked",
        FRAMES,
        "damaged = len(received) >= size and not _checksum_holds(received[:size])",
        "damaged = False",
        _RTU,
    ),
    Fault(
        "an answer to another transaction is taken for the one that is awaited",
        LINK,
        "        if question is None:\n            due =",
        "        if question is None and self._window:\n"
        "            transaction, call = next(iter(self._window.items()))\n"
        "            question = call.question\n"
        "        if question is None:\n            due =",
        _ANSWERS,
    ),
    Fault(
        "what was given up is not remembered: its late answer closes the connection of all",
        LINK,
        "            self._late[transaction] = call.question\n",
        "",
        _SESSION,
    ),
    Fault(
        "surplus bytes behind an answer are not noticed",
        LINK,
        "if not wrong and rest and len(self._window) + len(self._late) == 1:",
        "if False:",
        _ANSWERS,
    ),
    Fault(
        "every byte that comes moves the deadline of a request",
        LINK,
        "        if self.open and self._loop.time() >= self._deaf_until_s:\n",
        "        for waiting in self._window.values():\n"
        "            waiting.deadline_s = self._loop.time() + waiting.asker.timeout_s\n"
        "        if self.open and self._loop.time() >= self._deaf_until_s:\n",
        ("tests/drivers/test_modbus_link.py::test_dribbling_answer_is_bounded_by_the_deadline_of_its_request",),
    ),
    Fault(
        "reads go before writes and emergencies",
        LINK,
        "heapq.heappush(self._queue, (call.priority, next(self._order), call))",
        "heapq.heappush(self._queue, (-call.priority, next(self._order), call))",
        _LINK,
    ),
    Fault(
        "a connection that may only read lets writes through",
        SESSION,
        "        if self._read_only:\n",
        "        if False:\n",
        _SESSION,
    ),
    Fault(
        "a dead endpoint is tried again at once, by everybody",
        SESSION,
        "self._again_s = from_s + wait_s * (0.5 + 0.5 * self._chance.random())",
        "self._again_s = from_s",
        _SESSION,
    ),
    Fault(
        "the scale factor of a value is ignored", CODEC, "float(value) * self.resolution(name)", "float(value)", _DRIVER
    ),
    Fault(
        "a scale factor that cannot be is believed",
        CODEC,
        " or not -MAX_EXPONENT <= int(exponent) <= MAX_EXPONENT",
        "",
        _CODEC,
    ),
    Fault(
        "a scale factor that changed while it was read is believed",
        CODEC,
        "if exponent is None or scale.name in self._unsteady or not",
        "if exponent is None or not",
        _CODEC,
    ),
    Fault(
        "a value is rounded up, beyond what was asked",
        CODEC,
        "return math.trunc(steps + math.copysign(STEP_NOISE, steps))",
        "return math.ceil(steps)",
        _CODEC,
    ),
    Fault(
        "a value that a register does not hold is cut to fit",
        CODEC,
        "        if not low - STEP_NOISE <= steps <= high + STEP_NOISE:\n",
        "        steps = min(max(steps, low), high)\n        if math.isnan(steps):\n",
        _CODEC,
    ),
    Fault(
        "signed registers are decoded without their sign",
        GATHER,
        'wire = np.empty(0, dtype=">" + letter)',
        'wire = np.empty(0, dtype=">" + letter.upper().replace("F", "f").replace("D", "d"))',
        _TELEMETRY,
    ),
    Fault(
        "not implemented is decoded as a number",
        GATHER,
        "np.copyto(numbers[:, run.fields], np.nan, where=counts == absent)",
        "pass",
        _TELEMETRY,
    ),
    Fault(
        "the scale factor of the reading before is used again",
        GATHER,
        "        found = np.take(registers, self._scale_words, axis=1)\n        scales =",
        '        found = self.__dict__.setdefault("cached", np.take(registers, self._scale_words, axis=1))\n'
        "        found = np.broadcast_to(found[:1], (len(registers), found.shape[1]))\n"
        "        scales =",
        (
            "tests/field/test_faults_answers.py::"
            "test_fault_11_whenever_scale_factors_change_a_good_value_is_a_right_one",
        ),
    ),
    Fault(
        "a setpoint goes out with its sign flipped",
        CONTROL,
        'image.to_register("WSet", command.value_w)',
        'image.to_register("WSet", -command.value_w)',
        _DRIVER,
    ),
    Fault(
        "the rate of charging has its sign flipped",
        CONTROL,
        '_percent(image, "InWRte", -command.value_w / self.charge_max_w)',
        '_percent(image, "InWRte", command.value_w / self.charge_max_w)',
        _DRIVER,
    ),
    Fault(
        "the reversion timer of a limit is not armed",
        CONTROL,
        "reversion={self.timer: seconds(image, self.timer, command.reversion_s), **self.constant},",
        "reversion={**self.constant},",
        _DRIVER,
    ),
    Fault(
        "a limit reverts to 100 % instead of what the device does by itself",
        CONTROL,
        'constant={"WMaxLimPctEnaRvrt": 0},',
        'constant={"WMaxLimPctEnaRvrt": 1, "WMaxLimPctRvrt": 100},',
        _DRIVER,
    ),
    Fault(
        "a reversion time below a second disarms the timer",
        CONTROL,
        "max(reversion_s, 1.0) if reversion_s > 0 else 0.0",
        "reversion_s",
        _DRIVER,
    ),
    Fault(
        "a value is enabled before it is there",
        CONTROL,
        "key=lambda request: any(name in change.enable for name in request.names))",
        "key=lambda request: not any(name in change.enable for name in request.names))",
        _CONTROL,
    ),
    Fault(
        "points that nobody may write are written",
        CONTROL,
        "        if permission(image.model.id, name) is not who:\n",
        "        if False:\n",
        _CONTROL,
    ),
    Fault(
        "refreshing revives what was released",
        CONTROL,
        "    if held.value_w is None:\n        return Change()\n",
        "",
        _DRIVER,
    ),
    Fault(
        "another device at the address is believed",
        DRIVER,
        "        if serial != expected:\n",
        "        if False:\n",
        _DRIVER,
    ),
    Fault(
        "who answers is not proven after a reconnect",
        DRIVER,
        "if known is None or not recent or not await verify(self._unit, known.found):",
        "if known is None or not recent:",
        _DRIVER,
    ),
    Fault(
        "commands go to addresses where other models stand now",
        DRIVER,
        "        if head != place.head:\n",
        "        if False:\n",
        ("tests/drivers/test_moved_map.py",),
    ),
    Fault(
        "a command of which the device took a part is told as refused",
        DRIVER,
        "                if not taken:\n                    raise\n",
        "                raise\n",
        _DRIVER,
    ),
)
