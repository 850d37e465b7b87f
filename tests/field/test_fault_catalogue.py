"""The failure catalogue: each fault of devices and networks, and each wrong answer seen, with the tests of its outcome.

Tests carry the proof; this table says which they are, and fails when one of them is renamed, taken out or forgotten.
"""

import ast
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

FAULTS: Mapping[int, tuple[str, ...]] = {
    # 1: no answer
    1: (
        "drivers/test_modbus_link.py::test_silence_ends_in_a_time_out_and_closes_the_connection",
        "field/test_poller.py::test_a_dead_device_does_not_slow_the_others",
        "field/test_poller.py::test_waits_for_a_dead_device_grow_to_their_cap_and_no_further",
        "field/test_faults_answers.py::test_fault_01_a_device_without_an_answer_is_stale_and_costs_nobody_else_anything",
        "closedloop/test_faults_over_tcp.py::test_four_devices_fail_at_once_and_come_back",
    ),
    # 2: connection half open
    2: (
        "drivers/test_modbus_link.py::test_half_open_connection_is_noticed_by_the_first_request_after_it",
        "drivers/test_modbus_session.py::test_half_open_connection_of_several_units_is_given_up_when_all_are_silent",
        "field/test_faults_answers.py::test_fault_02_a_connection_whose_other_end_is_gone_is_given_up_by_its_own_deadline",
    ),
    # 3: an answer in single bytes, far apart
    3: (
        "drivers/test_modbus_link.py::test_dribbling_answer_is_bounded_by_the_deadline_of_its_request",
        "field/test_faults_answers.py::test_fault_03_an_answer_that_dribbles_is_closed_at_the_deadline_of_its_request",
    ),
    # 4: exceptions, known and unknown
    4: (
        "drivers/test_modbus_answers.py::test_refusal_says_in_words_what_the_device_answered",
        "drivers/test_modbus_answers.py::test_exception_answer_names_its_code_and_the_connection_stays",
        "field/test_faults_answers.py::test_fault_04_an_exception_is_told_by_what_it_means_and_a_wrong_configuration_is_an_alarm",
        "field/test_faults_answers.py::test_fault_04_what_a_device_does_not_have_is_not_asked_for_in_a_hurry",
        "field/test_faults_answers.py::test_fault_04_a_busy_device_is_asked_again_on_the_same_connection",
        "field/test_reconcile.py::test_a_device_that_answers_with_an_exception_has_rejected_the_command",
    ),
    # 5: wrong unit
    5: (
        "drivers/test_modbus_answers.py::test_wrong_answer_to_a_read_drops_the_connection_and_the_next_read_is_right",
        "drivers/test_modbus_quirks.py::test_device_that_answers_as_another_unit_is_believed_under_that_name_only",
        "field/test_faults_answers.py::test_fault_05_an_answer_of_another_unit_is_not_believed",
    ),
    # 6: wrong or zero transaction, late answers
    6: (
        "drivers/test_modbus_link.py::test_late_answer_is_never_taken_for_the_next_one",
        "drivers/test_modbus_session.py::test_late_answer_of_one_unit_is_known_by_its_id_and_dropped",
        "drivers/test_modbus_quirks.py::test_device_that_always_answers_transaction_0_is_understood_and_never_trusted_after_a_time_out",
        "field/test_faults_answers.py::test_fault_06_an_answer_to_another_transaction_is_not_believed",
        "field/test_faults_answers.py::test_fault_06_an_answer_that_comes_after_its_time_out_is_not_taken_for_the_next_one",
    ),
    # 7: cut, oversized and short blocks
    7: (
        "drivers/test_modbus_answers.py::test_wrong_answer_to_a_read_drops_the_connection_and_the_next_read_is_right",
        "drivers/test_modbus_answers.py::test_any_damage_to_the_head_of_an_answer_is_noticed",
        "field/test_faults_answers.py::test_fault_07_a_block_of_another_size_is_rejected_whole",
        "fuzz/test_frames.py::test_no_mutated_answer_is_taken_for_a_good_one",
    ),
    # 8: other function code, wrong echo of a write
    8: (
        "drivers/test_modbus_answers.py::test_wrong_echo_of_a_write_is_refused",
        "field/test_faults_answers.py::test_fault_08_an_answer_with_another_function_code_is_not_believed",
        "field/test_faults_answers.py::test_fault_08_a_write_whose_echo_is_wrong_is_unknown_until_it_can_be_read_back",
        "field/test_reconcile_holding.py::test_after_an_answer_that_cannot_be_believed_what_the_device_holds_decides",
    ),
    # 9: garbage, wrong protocol id
    9: (
        "drivers/test_modbus_answers.py::test_random_bytes_are_never_taken_for_an_answer",
        "field/test_faults_answers.py::test_fault_09_garbage_closes_the_connection_and_is_not_believed",
    ),
    # 10: duplicates and split segments
    10: (
        "drivers/test_modbus_answers.py::test_answer_cut_anywhere_is_put_together",
        "drivers/test_modbus_link.py::test_answer_that_comes_again_later_closes_the_connection_and_harms_no_value",
        "field/test_faults_answers.py::test_fault_10_answers_in_single_bytes_or_twice_for_once_have_no_effect",
        "field/test_faults_answers.py::test_fault_10_answers_that_go_on_coming_twice_are_never_paired_with_the_next_question",
    ),
    # 11: scale factors that change, or cannot be
    11: (
        "drivers/test_sunspec_codec.py::test_scale_factor_out_of_range_makes_nothing_of_its_value",
        "drivers/test_sunspec_telemetry.py::test_scale_factor_that_changes_between_two_requests_of_a_poll_makes_its_values_missing",
        "drivers/test_sunspec_driver.py::test_new_scale_factor_counts_from_the_next_command",
        "field/test_faults_answers.py::test_fault_11_whenever_scale_factors_change_a_good_value_is_a_right_one",
        "field/test_faults_answers.py::test_fault_11_behind_a_scale_factor_that_cannot_be_is_no_value",
    ),
    # 12: sentinels of every type
    12: (
        "drivers/test_sunspec_codec.py::test_sentinel_of_every_type_is_not_implemented",
        "drivers/test_sunspec_models.py::test_every_type_of_the_models_has_a_sentinel_here",
        "drivers/test_sunspec_telemetry.py::test_sentinels_of_a_maker_make_values_missing",
        "field/test_faults_answers.py::test_fault_12_sentinels_are_no_values_and_never_zero",
    ),
    # 13: values that stand still
    13: (
        "field/test_poller.py::test_a_frozen_device_is_suspect_after_its_time_and_good_again_when_it_moves",
        "field/test_poller.py::test_measurements_that_stand_still_are_suspect_though_the_controls_beside_them_move",
        "field/test_judge_polled.py::test_fault_13_hundreds_that_stand_still_are_one_event_and_one_when_they_move",
        "field/test_heartbeat.py::test_a_devices_own_heartbeat_that_stands_still_is_an_alarm_once_until_it_moves_again",
        "service/test_service.py::test_a_frozen_device_leaves_the_plan_and_comes_back_when_it_moves",
    ),
    # 14: values that cannot be
    14: (
        "field/test_poller.py::test_values_that_cannot_be_are_suspect",
        "field/test_faults_answers.py::test_fault_14_ten_times_the_power_and_a_turned_sign_are_suspect_and_leave_control",
        "field/test_faults_answers.py::test_fault_14_a_state_of_charge_that_jumps_is_suspect",
        "field/test_judge.py::test_a_meter_is_bounded_with_and_without_a_rating",
        "field/test_judge.py::test_a_good_reading_lies_within_every_bound_whatever_the_registers_say",
        "field/test_judge_polled.py::test_fault_14_values_that_cannot_be_are_one_event_with_their_reason_and_one_when_they_can_again",
        "field/test_judge_polled.py::test_fault_14_a_meter_that_lost_its_measurements_is_suspect_and_on_a_dead_feeder_it_is_believed",
        "field/test_judge_polled.py::test_fault_14_a_meter_without_a_rating_that_shows_what_no_system_has_is_suspect",
        "field/test_judge_polled.py::test_fault_14_a_feeder_that_trips_is_doubted_for_one_poll_and_then_believed",
        "scada/test_meter.py::test_a_spike_never_enters_net_load_and_is_named_once",
    ),
    # 15: a device's clock jumps
    15: ("field/test_faults_answers.py::test_fault_15_a_device_whose_clock_jumps_is_read_and_commanded_by_our_time",),
    # 16: a setpoint lost in a reboot
    16: (
        "field/test_reconcile_holding.py::test_fault_16_a_setpoint_lost_in_a_reboot_is_written_again_within_one_interval",
        "field/test_reconcile.py::test_a_connection_lost_in_the_middle_of_a_write_leaves_the_outcome_unknown",
    ),
    # 17: acknowledged and not applied
    17: (
        "field/test_reconcile.py::test_a_device_that_acknowledges_and_ignores_is_found_by_the_read_back",
        "field/test_reconcile.py::test_a_device_that_holds_the_value_and_does_not_follow_it_is_found_by_its_power",
        "field/test_local_control.py::test_fault_17_a_device_under_local_control_is_left_alone_until_it_is_remote_again",
    ),
    # 19: a reversion that comes although it was refreshed
    19: (
        "field/test_heartbeat.py::test_fault_19_a_timer_that_runs_out_though_it_is_refreshed_is_an_alarm_and_the_value_is_written_again",
        "field/test_heartbeat.py::test_refreshing_is_at_most_a_third_of_the_reversion_time_apart",
    ),
    # 20: a reversion that never comes
    20: (
        "drivers/test_commission_cases.py::test_a_device_that_never_lets_go_is_of_class_c",
        "field/test_heartbeat.py::test_a_timer_that_does_not_count_down_is_an_alarm_once",
        "hil/test_world_faults.py::test_a_device_that_ignores_its_timer_goes_on_until_it_is_sound_again",
    ),
    # 21: a device for one client
    21: (
        "drivers/test_modbus_session.py::test_device_that_takes_a_single_client_is_never_asked_for_a_second_connection",
        "field/test_faults_answers.py::test_fault_21_a_device_for_one_client_is_lost_to_another_master_and_back_when_that_leaves",
    ),
    # 22: another master writes
    22: (
        "field/test_reconcile_holding.py::test_fault_22_a_device_that_another_master_keeps_writing_to_is_handed_over_for_an_hour",
    ),
    # 23: an update moves the map
    23: (
        "drivers/test_sunspec_driver.py::test_a_map_that_has_changed_behind_a_reconnect_is_discovered_anew_before_any_write",
        "drivers/test_sunspec_scan.py::test_device_that_changed_is_scanned_anew",
        "field/test_poller.py::test_a_reading_is_decoded_with_the_map_that_it_was_read_with",
        "field/test_faults_answers.py::test_fault_23_after_an_update_that_moved_the_map_setpoints_go_to_the_new_addresses",
    ),
    # 24: malicious strings
    24: (
        "drivers/test_sunspec_models.py::test_text_from_a_device_is_harmless_to_show",
        "drivers/test_sunspec_codec.py::test_text_from_a_device_is_printable_whatever_it_sends",
        "drivers/test_sunspec_scan.py::test_name_that_would_harm_a_screen_is_shown_as_plain_text",
        "field/test_faults_answers.py::test_fault_24_what_a_device_calls_itself_cannot_write_lines_of_its_own_into_the_log",
    ),
    # 25: a site is cut off
    25: (
        "field/test_faults_network.py::test_fault_25_a_site_that_is_cut_off_goes_stale_alone_and_lives_on_its_own_timers",
    ),
    # 26: the database is cut off
    26: (
        "field/test_faults_database.py::test_fault_26_without_its_database_the_gateway_goes_on_and_nothing_is_missing_afterwards",
        "historian/test_store.py::test_while_the_database_is_away_everything_waits",
    ),
    # 27: cut in one direction
    27: (
        "field/test_faults_network.py::test_fault_27_where_questions_get_through_and_answers_do_not_nothing_counts_as_done",
        "field/test_faults_network.py::test_fault_27_where_answers_would_get_through_and_questions_do_not_nothing_is_written",
    ),
    # 28: latency, jitter, loss, 9600 bit/s
    28: (
        "field/test_faults_network.py::test_fault_28_answers_that_take_five_seconds_are_never_taken_for_others",
        "field/test_faults_network.py::test_fault_28_loss_and_jitter_cost_single_polls_and_no_device",
        "field/test_faults_network.py::test_fault_28_at_9600_bit_per_s_an_answer_takes_its_time_and_comes",
    ),
    # 29: another host answers
    29: (
        "drivers/test_sunspec_driver.py::test_another_serial_number_is_refused_and_disconnected",
        "drivers/test_sunspec_driver.py::test_a_device_that_comes_back_with_another_serial_number_is_not_written_to",
        "field/test_faults_answers.py::test_fault_29_another_device_at_the_address_is_never_written_to",
    ),
    # 30: everybody reconnects at once
    30: (
        "drivers/test_modbus_session.py::test_fleet_that_comes_back_at_once_is_connected_at_the_rate_of_the_site",
        "drivers/test_modbus_session.py::test_endpoint_that_fails_is_put_off_longer_each_time_to_a_cap_and_says_so_at_once",
        "field/test_faults_network.py::test_fault_30_a_fleet_that_comes_back_at_once_is_connected_at_a_bounded_rate",
    ),
}
"""By the number of the fault; 18, wear of flash memory, has no row."""
REQUIRED = {*range(1, 17), *range(19, 22), *range(23, 31)}

WRONG_ANSWERS: Mapping[str, tuple[str, ...]] = {
    "a silent device holds up every other request": (
        "drivers/test_modbus_link.py::test_silent_device_costs_one_time_out_however_many_wait",
        "drivers/test_modbus_session.py::test_dead_unit_behind_a_gateway_does_not_cost_the_others_their_connection",
    ),
    "a request in flight is not failed when its connection closes": (
        "drivers/test_modbus_link.py::test_peer_that_closes_with_a_request_in_flight_fails_it_at_once",
    ),
    "no more than one request in flight": (
        "drivers/test_modbus_link.py::test_overlapping_calls_go_one_at_a_time_and_each_gets_its_own",
        "drivers/test_modbus_link.py::test_pipelined_requests_fill_the_window_and_may_be_answered_in_any_order",
    ),
    "a late answer, a cancelled call": (
        "drivers/test_modbus_link.py::test_late_answer_is_never_taken_for_the_next_one",
        "drivers/test_modbus_link.py::test_cancelled_read_leaves_the_connection_whole_and_its_answer_goes_nowhere",
    ),
    "short, odd, of another function or with a wrong echo, and accepted": (
        "drivers/test_modbus_answers.py::test_wrong_answer_to_a_read_drops_the_connection_and_the_next_read_is_right",
        "drivers/test_modbus_answers.py::test_wrong_echo_of_a_write_is_refused",
        "drivers/test_modbus_rtu.py::test_wrong_rtu_answer_drops_the_connection_and_the_next_read_is_right",
        "drivers/test_modbus_rtu.py::test_rtu_echo_of_a_write_must_fit_in_every_byte",
        "fuzz/test_frames.py::test_a_missing_check_is_found",
    ),
    "another unit in the answer": (
        "drivers/test_modbus_quirks.py::test_device_that_answers_as_another_unit_is_believed_under_that_name_only",
    ),
    "in single bytes": ("drivers/test_modbus_answers.py::test_answer_in_single_bytes_is_put_together",),
    "pipelined requests that a server drops": (
        "hil/test_device_server.py::test_several_requests_in_one_segment_and_fragments_are_all_answered_in_order",
        "drivers/test_modbus_link.py::test_wrong_answer_among_pipelined_ones_is_a_violation_for_its_own_question_only",
        "wire/test_libraries_agree.py::test_wrong_answer_08_a_server_that_drops_pipelined_requests_costs_one_time_out_and_no_value",
    ),
    "an exception without a function, and to a count that is too large": (
        "drivers/test_modbus_answers.py::test_wrong_answer_to_a_read_drops_the_connection_and_the_next_read_is_right",
        "drivers/test_modbus_answers.py::test_read_that_no_frame_can_carry_is_a_mistake_of_the_caller",
    ),
}
"""Behaviour of common libraries and servers that ours must not have, or must survive."""


@cache
def names_in(path: Path) -> frozenset[str]:
    """Names of the tests of a file, without those that are always skipped."""
    return frozenset(
        node.name
        for node in ast.parse(path.read_text(encoding="utf8")).body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not any(ast.unparse(mark).startswith("pytest.mark.skip") for mark in node.decorator_list)
    )


@pytest.mark.parametrize("proven", [*FAULTS.values(), *WRONG_ANSWERS.values()], ids=[*map(str, FAULTS), *WRONG_ANSWERS])
def test_every_entry_of_the_catalogue_is_a_test_that_is_there(proven: tuple[str, ...]) -> None:
    assert proven
    for entry in proven:
        file, _, name = entry.partition("::")
        assert name in names_in(TESTS / file), entry


def test_every_fault_that_must_be_proven_is_in_the_catalogue() -> None:
    assert FAULTS.keys() >= REQUIRED
    assert len(WRONG_ANSWERS) == 9


def test_every_test_that_bears_the_number_of_a_fault_is_in_its_row() -> None:
    numbered = re.compile(r"test_fault_(\d+)_")
    found = 0
    for path in TESTS.rglob("test_*.py"):
        for name in names_in(path):
            if match := numbered.match(name):
                found += 1
                assert f"{path.relative_to(TESTS).as_posix()}::{name}" in FAULTS[int(match[1])]
    assert found >= len(REQUIRED) - 8
