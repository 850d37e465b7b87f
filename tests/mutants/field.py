"""Faults in the gateway: ledger, writer, reconciler, heartbeat, and what they know of devices."""

from tests.mutants.fault import Fault

LEDGER = "derms/field/ledger.py"
WRITER = "derms/field/writer.py"
RECONCILE = "derms/field/reconcile.py"
HEARTBEAT = "derms/field/heartbeat.py"
HOLDINGS = "derms/field/holdings.py"
CUSTODY = "derms/field/custody.py"
WANTS = "derms/field/wants.py"
WISHES = "derms/field/wishes.py"
THRIFT = "derms/field/thrift.py"
JUDGE = "derms/field/judge.py"
GATEWAY = "derms/service/gateway.py"
WATCH = "derms/field/watch.py"

_HOLDINGS = ("tests/field/test_holdings.py",)
_THRIFT = ("tests/field/test_thrift.py",)
_LOCAL = "tests/field/test_local_control.py"
_JUDGE = ("tests/field/test_judge.py",)

FIELD: tuple[Fault, ...] = (
    Fault(
        "commands are sent before the journal has them",
        LEDGER,
        "await asyncio.get_running_loop().run_in_executor(None, self.journal.commit)",
        "asyncio.get_running_loop().call_later(5.0, self.journal.commit)",
        ("tests/field/test_reconcile.py::test_an_intent_is_durable_before_its_write_reaches_the_wire",),
    ),
    Fault(
        "errands do not wait for the journal",
        RECONCILE,
        "        await asyncio.shield(durable)\n",
        "        await asyncio.sleep(0.0)\n",
        ("tests/field/test_reconcile_durable.py",),
    ),
    Fault(
        "without a journal setpoints go out all the same",
        LEDGER,
        "            if pending.command.value_w is not None:\n                self.end(",
        "            if False:\n                self.end(",
        ("tests/field/test_reconcile.py::test_without_a_journal_no_setpoint_goes_out_but_releases_do",),
    ),
    Fault(
        "an effect is seen in a reading from before the write",
        LEDGER,
        "fresh = requested_s(pending.row) > pending.written_s",
        "fresh = True",
        ("tests/field/test_reconcile.py::test_an_effect_is_judged_by_readings_from_after_the_write_only",),
    ),
    Fault(
        "an effect is seen in a stale reading",
        LEDGER,
        "seen = fresh and snapshot.quality[row] == Quality.GOOD and np.isfinite(effect_w)",
        "seen = fresh and np.isfinite(effect_w)",
        ("tests/field/test_effect_seen.py",),
    ),
    Fault(
        "a device that does not follow is taken to follow",
        LEDGER,
        "        if seen and follows:\n",
        "        if seen:\n",
        (
            "tests/field/test_reconcile.py::"
            "test_a_device_that_holds_the_value_and_does_not_follow_it_is_found_by_its_power",
        ),
    ),
    Fault(
        "all timers of a fleet run out at once",
        LEDGER,
        "self.settings.reversion_s + phase(device_id) * self.settings.reversion_jitter_s",
        "self.settings.reversion_s",
        ("tests/field/test_reconcile.py::test_every_value_arms_its_reversion_each_device_with_a_time_of_its_own",),
    ),
    Fault(
        "what was written is not read back",
        WRITER,
        "held = await driver.read_back(command.quantity)",
        "held = Held(command.value_w, command.reversion_s, command.reversion_s, 1.0)",
        ("tests/field/test_reconcile.py::test_a_device_that_acknowledges_and_ignores_is_found_by_the_read_back",),
    ),
    Fault(
        "what was read back is not compared",
        WRITER,
        "elif held.value_w is None or not abs(held.value_w - command.value_w) <= 1.001 * held.resolution_w:",
        "elif held.value_w is None:",
        ("tests/field/test_reconcile.py::test_a_read_back_that_is_not_a_number_verifies_nothing",),
    ),
    Fault(
        "token and deadline of a command are not looked at directly before the send",
        WRITER,
        "        if reason is not None:\n",
        "        if False:\n",
        (
            "tests/field/test_reconcile.py::test_a_setpoint_whose_validity_ends_while_it_waits_for_the_device_is_never_sent",
        ),
    ),
    Fault(
        "a value whose timer is not armed stays in the device",
        WRITER,
        "if command.value_w is not None and held is not None and not _is_armed(command, held):",
        "if False:",
        ("tests/field/test_reconcile.py::test_a_device_that_does_not_arm_its_timer_keeps_no_setpoint",),
    ),
    Fault(
        "a device with a timer of zero counts as armed",
        WRITER,
        "return 0.0 < held.reversion_s <= command.reversion_s + 1.0",
        "return 0.0 <= held.reversion_s <= command.reversion_s + 1.0",
        ("tests/field/test_reconcile.py::test_a_device_that_does_not_arm_its_timer_keeps_no_setpoint",),
    ),
    Fault(
        "devices are written to without a look at what they hold",
        WRITER,
        "        if key in self.custody.holdings:\n",
        "        if False:\n",
        (
            "tests/field/test_reconcile_foreign.py::"
            "test_looking_for_foreign_commands_asks_no_device_that_holds_nothing_or_ours",
        ),
    ),
    Fault(
        "a device that is left to another master is written to",
        WRITER,
        "return row not in self.custody.handed_over",
        "return True",
        ("tests/field/test_reconcile_foreign.py::test_after_a_conflict_is_over_the_first_overwrite_is_told_again",),
    ),
    Fault(
        "a device under local control is corrected",
        RECONCILE,
        "if row not in self.custody.handed_over and not local[row]]",
        "if row not in self.custody.handed_over]",
        (_LOCAL,),
    ),
    Fault(
        "nobody is told of local control",
        WATCH,
        "(local == LOCAL) & ~self._local[rows]",
        "(local == LOCAL) & self._local[rows]",
        (_LOCAL,),
    ),
    Fault(
        "an expired dispatch is followed on",
        WANTS,
        "        if self.latest is None or not self.latest.valid_until_s < now_s:\n",
        "        if True:\n",
        ("tests/field/test_reconcile.py::test_after_its_validity_a_dispatch_is_let_go_and_devices_are_released",),
    ),
    Fault(
        "what is wanted goes out past the guards",
        WISHES,
        "value_w, by = float(guarded.value_w[row]), guarded.by[row]",
        'value_w, by = wanted_w, ""',
        ("tests/field/test_reconcile.py::test_a_clamp_names_its_guard_and_what_was_wanted",),
    ),
    Fault(
        "what a service before us left in devices is not handed back",
        RECONCILE,
        "in self.custody.held | self.custody.unknown",
        "in self.custody.held",
        (
            "tests/field/test_reconcile.py::test_a_hand_back_right_after_a_restart_releases_what_the_service_before_left",
        ),
    ),
    Fault(
        "a journal that hangs holds up the releases",
        RECONCILE,
        "if (await asyncio.wait([durable], timeout=JOURNAL_S))[0]:",
        "if (await asyncio.wait([durable]))[0]:",
        ("tests/field/test_stopping.py::test_a_journal_that_hangs_keeps_no_device_from_being_handed_back",),
    ),
    Fault(
        "a device that hangs is waited for without end",
        RECONCILE,
        "            if not (await asyncio.wait([task], timeout=most_s))[0]:\n",
        "            if not (await asyncio.wait([task]))[0]:\n",
        (
            "tests/field/test_reconcile_apart.py::"
            "test_a_command_to_a_device_that_never_answers_ends_in_time_and_the_next_one_is_tried",
        ),
    ),
    Fault(
        "timers are refreshed past the guards",
        HEARTBEAT,
        "            return not by\n",
        "            return True\n",
        ("tests/field/test_heartbeat.py::test_a_value_that_a_guard_would_change_now_is_left_to_its_timer",),
    ),
    Fault(
        "timers are refreshed after the dispatch has ended",
        HEARTBEAT,
        "now_s > holding.valid_until_s",
        "False",
        ("tests/field/test_heartbeat.py::test_a_dispatch_that_is_not_valid_any_more_is_not_refreshed",),
    ),
    Fault(
        "timers are not refreshed",
        HEARTBEAT,
        "        await driver.refresh(quantity, holding.command.reversion_s)\n",
        "",
        ("tests/field/test_heartbeat.py::test_what_devices_hold_outlives_its_reversion_time_without_a_turn",),
    ),
    Fault(
        "the value of another master is kept alive",
        HEARTBEAT,
        "if held.value_w is None or (found is not None and found.corrects):",
        "if held.value_w is None:",
        ("tests/field/test_heartbeat.py::test_a_value_of_another_master_is_not_kept_alive",),
    ),
    Fault(
        "a refresh that fails is not tried again",
        HEARTBEAT,
        "            self._agenda.put(key, snapshot.now_s + RETRY_FRAC * self._every_s(reconciler.holdings[key]))\n",
        "            pass\n",
        (
            "tests/field/test_heartbeat.py::"
            "test_a_refresh_that_does_not_come_through_is_tried_again_before_the_time_is_over",
        ),
    ),
    Fault(
        "a timer that was due while its device was away is never armed again",
        HEARTBEAT,
        "                self._agenda.put(key, now_s)\n            else:",
        "                pass\n            else:",
        (
            "tests/field/test_heartbeat.py::"
            "test_a_timer_that_was_due_while_its_device_was_away_is_armed_when_it_is_back",
        ),
    ),
    Fault(
        "timers are refreshed as late as they run out",
        HOLDINGS,
        "return min(most_s, self.reversion_s / 3.0)",
        "return max(most_s, self.reversion_s)",
        ("tests/field/test_heartbeat.py::test_what_devices_hold_outlives_its_reversion_time_without_a_turn",),
    ),
    Fault(
        "a value that another master wrote is not noticed",
        HOLDINGS,
        "    if not abs(held.value_w - value_w) <= 1.001 * max(held.resolution_w, holding.held.resolution_w):\n",
        "    if False:\n",
        _HOLDINGS,
    ),
    Fault(
        "a command that a device lost is not noticed",
        HOLDINGS,
        "        if age_s >= reversion_s - TIMER_SLACK_S:\n",
        "        if True:\n",
        _HOLDINGS,
    ),
    Fault(
        "corrections are not bounded",
        HOLDINGS,
        "        if len(times_s) <= self.most_per_h:\n",
        "        if True:\n",
        _HOLDINGS,
    ),
    Fault(
        "the command of another master is ignored",
        CUSTODY,
        "            new = shown - self._foreign - self.held - self.unknown\n",
        "            new = set[Key]()\n",
        (
            "tests/field/test_reconcile_foreign.py::"
            "test_a_foreign_limit_that_comes_after_the_start_is_told_once_with_its_value_and_stays",
        ),
    ),
    Fault(
        "the command of another master that has no timer is taken for ours",
        CUSTODY,
        "        if not held.reversion_s > 0.0:\n",
        "        if False:\n",
        (
            "tests/field/test_reconcile_foreign.py::"
            "test_a_foreign_limit_that_comes_after_the_start_is_told_once_with_its_value_and_stays",
        ),
    ),
    Fault(
        "the budget of writes is ignored",
        THRIFT,
        "self.tally.count(self.clock.utc(), self._place(key)) / self.settings.writes_per_day",
        "0.0 * self.settings.writes_per_day",
        _THRIFT,
    ),
    Fault(
        "a restart gives a second budget of writes",
        RECONCILE,
        "Thrift(fleet, clock, settings, self.on_event, self.journal.tally())",
        "Thrift(fleet, clock, settings, self.on_event, type(self.journal.tally())())",
        ("tests/field/test_thrift_restart.py",),
    ),
    Fault(
        "a limit that gets tighter is not worth a write",
        THRIFT,
        "tighter = value_w < held.value_w - step_w",
        "tighter = False",
        _THRIFT,
    ),
    Fault(
        "a timer that is late is not worth a write",
        THRIFT,
        "return tighter or self.clock.monotonic_s() - holding.armed_s > due_s",
        "return tighter",
        _THRIFT,
    ),
    Fault(
        "old values stay good",
        JUDGE,
        "    now[age_s > stale_after_s] = Quality.STALE\n",
        "",
        (
            "tests/field/test_poller.py::"
            "test_a_silent_device_is_stale_after_its_time_and_keeps_its_last_value_to_look_at",
        ),
    ),
    Fault(
        "what speaks against a reading is told and not believed",
        JUDGE,
        "doubt[fails], quality[fails] = number, _SUSPECT",
        "doubt[fails], quality[fails] = number, _GOOD",
        _JUDGE,
    ),
    Fault(
        "in observe mode the transport lets writes through",
        GATEWAY,
        "read_only=site.mode is not Mode.AUTO,",
        "read_only=False,",
        ("tests/service/test_read_only.py",),
    ),
    Fault(
        "commands that a crash left without outcome stay so",
        GATEWAY,
        "            self._journal.outcome(clock.utc(), clock.monotonic_s(), seq, Unknown(why))\n",
        "            pass\n",
        (
            "tests/service/test_service.py::"
            "test_commands_that_a_crash_left_without_outcome_are_closed_as_unknown_by_the_next_service",
        ),
    ),
    Fault(
        "the end of the service leaves devices with what they hold",
        GATEWAY,
        "                await self.reconciler.hand_back()\n",
        "                pass\n",
        ("tests/service/test_service.py::test_batteries_follow_the_plan_and_are_handed_back_at_the_end",),
    ),
    Fault(
        "control follows the wall clock",
        "derms/service/clock.py",
        """        return self._loop.time()

    def utc(self) -> datetime:
        return utc_now()
""",
        """        return utc_now().timestamp()

    def utc(self) -> datetime:
        return utc_now()
""",
        ("tests/service/test_clock.py",),
    ),
)
