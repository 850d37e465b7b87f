"""Faults in what people order, how it comes to bear on plans, and in stops on their way to devices."""

from tests.mutants.fault import Fault

ORDERS_HELD = "derms/field/orders.py"
ORDERS_FILE = "derms/field/orders_file.py"
HANDOVER = "derms/control/handover.py"
GUARDS = "derms/control/guards.py"
LAID = "derms/field/laid.py"
WANTS = "derms/field/wants.py"
WISHES = "derms/field/wishes.py"
PACE = "derms/field/pace.py"
RESTORER = "derms/field/restorer.py"
WALK = "derms/field/stop_walk.py"
SENDER = "derms/field/stop_sender.py"
DESK = "derms/field/stop_desk.py"
WITHDRAWN = "derms/field/withdrawn.py"


def _orders(name: str) -> tuple[str, ...]:
    return (f"tests/field/test_orders_dispatch.py::test_{name}",)


def _desk(name: str) -> tuple[str, ...]:
    return (f"tests/field/test_stop_desk.py::test_{name}",)


_FILE = ("tests/field/test_orders_file.py",)
_HOSTILE = (
    "tests/faults/test_hostile_brain.py::"
    "test_what_is_no_dispatch_is_refused_with_all_reasons_moves_nothing_and_the_next_good_one_is_followed",
)

ORDERS: tuple[Fault, ...] = (
    Fault(
        "an automatic-control inhibit keeps no plan away",
        LAID,
        "rows: BoolArray = passing & ~permissives.barred(rank, self.kept.board, self.places)",
        "rows: BoolArray = passing",
        _orders("an_automatic_control_inhibit_hands_its_device_back_and_a_person_may_still_command_it"),
    ),
    Fault(
        "a feeder in SHADOW is dispatched",
        LAID,
        "passing = modes.passing(rank, self.levels, self.site, approved=approved)",
        "passing = np.ones(len(self.places), dtype=np.bool_)",
        _orders("one_that_starts_in_shadow_plans_and_writes_nothing"),
    ),
    Fault(
        "what is under a clearance is let go, and may energize",
        LAID,
        "alone: BoolArray = self.stopped | self.forbidden[Act.ENERGIZE]",
        "alone: BoolArray = self.stopped",
        _orders("under_a_clearance_nothing_is_written_not_even_a_release_that_might_energize"),
    ),
    Fault(
        "plans and people reach a device under a stop",
        LAID,
        "alone: BoolArray = self.stopped | self.forbidden[Act.ENERGIZE]",
        "alone: BoolArray = self.forbidden[Act.ENERGIZE]",
        _orders("a_device_under_a_stop_gets_nothing_of_plans_and_people_and_keeps_what_it_holds"),
    ),
    Fault(
        "in ADVISE a newer plan takes the place of the approved one",
        WANTS,
        "if self.approved is not None and self.approved.plan_id == dispatch.plan_id:",
        "if self.approved is not None:",
        _orders("in_advise_a_plan_goes_out_once_approved_and_a_newer_one_does_not_take_its_place"),
    ),
    Fault(
        "in ADVISE a plan goes out that nobody has approved",
        WANTS,
        "rows = laid.passing(Rank.OPTIMIZER)\n",
        "rows = laid.passing(Rank.OPTIMIZER, approved=True)\n",
        _orders("in_advise_a_plan_goes_out_once_approved_and_a_newer_one_does_not_take_its_place"),
    ),
    Fault(
        "a gateway that is alone sends new setpoints",
        WISHES,
        "if np.isfinite(found.value_w[row]) and not self.orders.ladder.setpoints:",
        "if False:",
        _orders("a_gateway_that_is_alone_sends_nothing_new_and_devices_end_what_they_hold"),
    ),
    Fault(
        "a dispatch that nobody could follow is adopted",
        WISHES,
        "        if not reasons:\n            self.plans",
        "        if True:\n            self.plans",
        ("tests/field/test_plan_refused.py",),
    ),
    Fault(
        "a dispatch of the wrong shape is no fault",
        HANDOVER,
        "if np.shape(values) != (devices, *steps):",
        "if False:",
        _HOSTILE,
    ),
    Fault(
        "a dispatch may be valid for ever",
        HANDOVER,
        "if not 0.0 < left_s <= validity_s + AHEAD_MAX_S:",
        "if False:",
        ("tests/field/test_plan_refused.py",),
    ),
    Fault(
        "the ramp of the fleet is skipped",
        GUARDS,
        "    (FLEET_RAMP, partial(_quota_guard, FLEET_RAMP)),\n",
        "",
        _orders("the_fleet_moves_no_faster_than_its_ramp_and_goes_on_until_it_is_there"),
    ),
    Fault(
        "the ramp of a person is skipped",
        GUARDS,
        "    (AUTHOR_RAMP, partial(_quota_guard, AUTHOR_RAMP)),\n",
        "",
        _orders("what_one_person_sets_is_ramped_for_all_of_it_together"),
    ),
    Fault(
        "what has moved does not count against the ramp",
        PACE,
        "                self._moved[FLEET].append((now_s, change_w))\n",
        "",
        _orders("the_fleet_moves_no_faster_than_its_ramp_and_goes_on_until_it_is_there"),
    ),
    Fault(
        "leaving AUTO lets all devices go at once",
        RESTORER,
        "ramp_w_per_min=self.ramp_w_per_min",
        "ramp_w_per_min=1e15",
        _orders("leaving_auto_restores_one_device_after_another_and_never_faster_than_the_ramp"),
    ),
    Fault(
        "a stop goes out without regard to its stages",
        WALK,
        "every_s=self.every_s, immediate=self.immediate)",
        "every_s=self.every_s, immediate=True)",
        _desk("stages_go_out_one_after_the_other_until_somebody_says_immediate"),
    ),
    Fault(
        "immediate does not override the stages",
        WALK,
        "every_s=self.every_s, immediate=self.immediate)",
        "every_s=self.every_s, immediate=False)",
        _desk("stages_go_out_one_after_the_other_until_somebody_says_immediate"),
    ),
    Fault(
        "a device that does not obey is not told by the next means",
        WALK,
        "        self.attempt = moved\n",
        "",
        _desk("a_device_that_ignores_one_means_is_told_by_the_next"),
    ),
    Fault(
        "what was told counts as held",
        SENDER,
        "        walk.read(row, means, math.inf if held.value_w is None else held.value_w, self._now_s())\n"
        "        self._judge(",
        "        walk.read(row, means, math.inf if value_w is None else value_w, self._now_s())\n        self._judge(",
        ("tests/field/test_stop_read_back.py",),
    ),
    Fault(
        "service that others have withdrawn is given back",
        SENDER,
        "        if was_in or walk.resumed:\n",
        "        if True:\n",
        _desk("service_that_others_have_withdrawn_is_not_given_back"),
    ),
    Fault(
        "one that is stopped again is let in all the same",
        SENDER,
        "if reason is not None or not may(row):",
        "if reason is not None:",
        _desk("one_that_is_stopped_again_while_it_is_being_let_in_stays_out"),
    ),
    Fault(
        "a journal that hangs holds up a stop",
        SENDER,
        "asyncio.wait([commit], timeout=left_s)",
        "asyncio.wait([commit], timeout=5.0)",
        _desk("a_disk_that_hangs_costs_a_stop_a_fifth_of_a_second"),
    ),
    Fault(
        "a stop waits for whoever has the device",
        SENDER,
        "async with asyncio.timeout(ALONE_S):",
        "async with asyncio.timeout(None):",
        _desk("a_device_that_others_do_not_let_go_of_is_told_all_the_same"),
    ),
    Fault(
        "one device that hangs is waited for without end",
        "derms/field/stop_calls.py",
        "            if now_s >= until_s:\n",
        "            if False:\n",
        _desk("a_driver_that_hangs_costs_the_others_nothing"),
    ),
    Fault(
        "a request that comes twice stops twice",
        DESK,
        "            self._given[request] = latch.number\n",
        "            pass\n",
        _desk("a_request_that_comes_twice_stops_once"),
    ),
    Fault(
        "a stop of before a restart is forgotten",
        DESK,
        "            if latch.number not in self._walks:\n",
        "            if False:\n",
        _desk("a_stop_that_was_latched_before_a_restart_is_gone_on_with"),
    ),
    Fault(
        "devices are let in that a tag keeps out",
        DESK,
        "return rows & ~orders.board.forbids(Act.ENERGIZE, orders.places) if rows.any() else rows",
        "return rows",
        _desk("nobody_is_let_in_that_a_tag_keeps_out_or_another_stop_holds"),
    ),
    Fault(
        "devices are let in that another stop holds",
        DESK,
        " & ~orders.stopped()\n",
        "\n",
        _desk("nobody_is_let_in_that_a_tag_keeps_out_or_another_stop_holds"),
    ),
    Fault(
        "one that was away is not told again",
        DESK,
        "                walk.lost(row)\n",
        "                pass\n",
        _desk("one_that_was_away_after_it_had_been_told_is_told_again"),
    ),
    Fault(
        "a site that only observes is stopped",
        DESK,
        "        if not self.writes:\n",
        "        if False:\n",
        _desk("a_scope_that_nobody_bears_and_a_site_that_only_observes_are_refused"),
    ),
    Fault(
        "a change of orders holds though it is not saved",
        ORDERS_HELD,
        "            return _not_saved(failed)\n",
        "            pass\n",
        _FILE,
    ),
    Fault(
        "after orders were lost nothing is inhibited",
        ORDERS_HELD,
        "board = numbered.hung(TagKind.CONTROL_INHIBIT, EVERYTHING, LOST, GATEWAY, at)",
        "board = numbered",
        _FILE,
    ),
    Fault(
        "the time for which nobody ran does not count for what people have set",
        ORDERS_FILE,
        "now_s - self.monotonic_s - (clock.utc() - self.utc).total_seconds()",
        "now_s - self.monotonic_s",
        _FILE,
    ),
    Fault(
        "a wall clock that is put moves the ends of what people have set",
        ORDERS_FILE,
        "if boot and boot == self.boot and now_s >= self.monotonic_s:",
        "if False:",
        _FILE,
    ),
    Fault(
        "a device that a forgotten stop has ceased looks healthy",
        DESK,
        "if self.shut_out.looks and now_s - self._searched_s >= SEARCH_S:",
        "if False:",
        _desk("one_that_a_forgotten_stop_has_ceased_is_an_alarm_and_shown_until_it_is_back"),
    ),
    Fault(
        "what was given wrong ends like what is refused as things stand",
        "derms/service/exit_status.py",
        "return WRONG_INPUT if refused.is_of_request else FAILED",
        "return FAILED",
        ("tests/service/test_order_commands.py",),
    ),
    Fault(
        "after orders were lost numbers of tags and stops come again",
        ORDERS_HELD,
        "max(last, NUMBERS * token)",
        "last",
        _FILE,
    ),
    Fault(
        "of two that a turn marks only the last counts as a change to be kept",
        WITHDRAWN,
        "self._changed |= bool",
        "self._changed = bool",
        ("tests/field/test_withdrawn.py",),
    ),
    Fault(
        "orders are written over the old ones",
        ORDERS_FILE,
        "        new = self._beside(NEW)\n",
        "        new = self.path\n",
        _FILE,
    ),
)
