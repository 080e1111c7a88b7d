"""The matrix of attacks on serving: what is tried, and whether serving stands it.

Each row names the tests that hold it; they are run together, once, and a row passes where all of
its tests pass. What this computer cannot run (PostgreSQL, schemathesis) is said as skipped.

    python benchmarks/attacks.py [--only S7] [--soak] [--workers N] [--json FILE]
"""

from __future__ import annotations

import sys

from faults import Fault, matrix


def _of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{file}.py::test_{name}" for name in names)


DOOR, CLIENTS, KILL, LOAD, SCHEMA = (f"serve/attacks/test_attacks_{name}" for name in (
    "door", "clients", "kill", "load", "schema"))
HOSTILE, STRICT, HTTP = ("serve/api/test_api_hostile", "serve/api/test_api_strict",
                         "serve/test_http")
BUDGETS, RACES, ADMIN = ("serve/test_budgets_served", "ledger/test_ledger_races",
                         "serve/api/admin/test_admin_attacks")

ATTACKS = (
    Fault("S1", "bodies that nobody sends by accident: bombs, NaN, surrogates, NUL, 5,000 digits",
          _of(HOSTILE, "raw_bodies", "every_field_with_odd_values")
          + _of("serve/gateway/test_fields", "bodies_that_are_no_json_object",
                "whatever_is_sent_is_read_or_refused_with_400",
                "values_out_of_range_name_their_field", "bad_messages_are_named")),
    Fault("S2", "special tokens in what people write",
          _of(STRICT, "what_people_write_never_is_a_special_token")
          + _of("serve/engine/test_chat", "nobody_forges_a_special_token")
          + _of("serve/engine/test_text", "special_tokens_are_read_from_text_only_where_asked")),
    Fault("S3", "prompts of megabytes",
          _of(HOSTILE, "prompt_bombs_are_refused_before_they_are_tokenised")
          + _of(HTTP, "large_bodies_are_refused_unread")),
    Fault("S4", "compressed bodies", _of(HTTP, "large_bodies_are_refused_unread")),
    Fault("S5", "slow clients: heads, bodies, and who stops reading",
          _of(CLIENTS, "heads_that_never_end_keep_nobody_out_and_are_closed",
              "who_stops_reading_is_dropped_and_others_go_on",
              "bodies_that_stop_half_way_hold_nothing")
          + _of(HOSTILE, "a_body_that_does_not_come_ends")
          + _of("serve/test_sweep", "what_has_no_request_in_time_is_closed_and_what_has_is_not",
                "who_does_not_read_what_is_left_is_not_waited_for")),
    Fault("S6", "clients that leave in the middle (a thousand with --soak)",
          _of(CLIENTS, "streams_that_are_left_in_the_middle_give_all_back")
          + _of(BUDGETS, "whoever_leaves_is_charged_what_was_made_and_holds_nothing",
                "whoever_leaves_the_queue_is_charged_nothing")
          + _of("serve/engine/test_engine_loop", "a_thousand_cancellations_leave_every_page_free"),
          _of("serve/test_soak", "a_thousand_streams_that_are_left_give_all_pages_back",
              "a_minute_of_many_clients_leaves_nothing_behind")),
    Fault("S7", "paths, hosts, forwarding headers, two keys, requests in requests",
          _of(DOOR, "no_spelling_of_a_path_needs_no_key", "no_header_stands_for_a_key",
              "a_good_key_beside_a_bad_one_is_no_key",
              "a_request_hidden_in_another_has_no_key_of_its_own",
              "requests_behind_one_another_are_asked_for_keys_each",
              "no_other_protocol_is_a_way_in", "heads_have_a_largest_size")
          + _of(HOSTILE, "paths_beside_the_routes_need_a_key_too")
          + _of(HTTP, "a_page_of_another_site_is_refused")
          + _of(ADMIN, "no_spelling_of_a_path_goes_round_the_door")),
    Fault("S8", "secrets guessed letter by letter, and of letters that no secret has",
          _of("ledger/test_ledger_keys", "a_key_opens_only_with_its_whole_secret",
              "whatever_a_stranger_sends_is_no_key"),
          _of(LOAD, "the_clock_does_not_tell_how_much_of_a_secret_is_right")),
    Fault("S9", "names that are paths", _of(DOOR, "a_models_name_is_never_a_path")
          + _of("ledger/test_ledger_inbox", "a_name_from_outside_makes_no_path")
          + _of("serve/test_server", "names_are_those_of_a_registry")
          + _of(ADMIN, "patterns_of_paths_hold_no_more_than_names")),
    Fault("S10", "addresses in messages",
          _of(DOOR, "what_stands_behind_an_address_is_never_fetched")),
    Fault("S11", "grammar bombs, templates of a request",
          _of("serve/engine/test_engine_grammar", "a_bomb_ends_its_own_answer_and_no_other",
              "what_is_no_grammar_is_unfit")
          + _of("serve/engine/test_chat", "what_a_template_may_not_do_is_said_soon")
          + _of("serve/gateway/test_fields", "what_a_chat_may_not_ask_is_named")),
    Fault("S12", "64 at once against the last of a budget",
          _of(BUDGETS, "64_at_once_against_the_last_of_a_budget_overshoot_by_nothing")
          + _of(RACES, "64_threads_against_the_last_dollar_overshoot_by_nothing",
                "processes_and_threads_spend_a_dollar_to_its_end_and_no_further",
                "budgets_are_set_while_others_hold")),
    Fault("S13", "the server killed at any instant (twenty with --soak)",
          _of(KILL, "a_killed_server_charged_what_it_delivered_and_told_nothing")
          + _of(RACES, "killed_at_every_instant_nothing_is_free_and_nothing_is_charged_twice"),
          _of(KILL, "killed_at_twenty_instants")),
    Fault("S14", "what others asked, by what is remembered",
          _of(HOSTILE, "paths_beside_the_routes_need_a_key_too")
          + _of("serve/engine/test_engine_pages",
                "only_equal_beginnings_of_equal_salt_are_found")
          + _of("serve/engine/test_engine_scheduler",
                "prompts_are_found_again_and_only_with_their_salt")),
    Fault("S15", "secrets and prompts in logs and files",
          _of(KILL, "a_killed_server_charged_what_it_delivered_and_told_nothing")
          + _of(BUDGETS, "no_log_at_any_level_has_a_secret_or_a_prompt")
          + _of("ledger/test_ledger_keys", "the_secret_is_nowhere_in_the_files")),
    Fault("S16", "raising one's own quota, managing without the role, keys that ended",
          _of(ADMIN, "nobody_does_more_than_the_role_says", "a_user_cannot_raise_its_own_quota",
              "a_key_that_was_ended_manages_nothing_from_that_moment",
              "bodies_of_those_who_may_not_are_not_read",
              "nothing_that_an_admin_sends_is_a_fault_inside")
          + _of(BUDGETS, "who_manages_or_watches_does_not_ask", "who_asks_does_not_watch",
                "a_key_that_ends_mid_stream_ends_it_and_what_went_is_charged")),
    Fault("S17", "everything that the published document allows, and does not",
          _of(SCHEMA, "a_few_examples_of_each_act"), _of(SCHEMA, "ten_thousand_examples")),
    Fault("S18", "clients that people use",
          _of("serve/test_openai_client", "chat_whole_and_streamed_say_the_same",
              "sixteen_streams_at_once_equal_one_by_one", "a_refused_field_is_named")
          + _of("serve/api/test_node_client", "answers", "a_call", "the_rest")),
    Fault("S19", "overload; weights (1,000 connections and ten minutes with --soak)",
          _of(LOAD, "whoever_comes_too_many_is_told_when_to_come_again")
          + _of("serve/gateway/test_admission", "weights_1_to_3_give_1_to_3_whatever_the_sizes",
                "more_keys_of_a_project_give_it_no_more"),
          _of(LOAD, "any_number_of_connections", "weights_one_to_three_get_one_to_three",
              "three_times_overload_leaves_the_accepted_as_fast")
          + _of("serve/test_soak", "minutes_with_keys_at_four_fifths_leave_all_as_it_was")),
    Fault("S20", "stopped while it answers",
          _of("serve/test_server", "while_it_drains_new_requests_get_a_503_and_old_ones_end",
              "a_signal_drains_and_exits_cleanly")
          + _of(HTTP, "leaving_the_block_lets_running_answers_end")),
    Fault("S21", "weights that lie",
          _of("model/test_headers", "a_file_that_lies_is_refused", "pickles_are_never_read",
              "a_header_longer_than_the_file_or_than_any_is_refused",
              "a_hundred_thousand_tensors_are_refused_by_name",
              "weights_that_are_no_floats_are_refused", "a_tensor_in_two_files_is_refused",
              "a_changed_byte_is_refused_or_changes_nothing_that_is_said")),
    Fault("S22", "an answer alone and in any company",
          _of("serve/engine/test_local", "alone_and_in_any_batch_the_greedy_answer_is_one",
              "preemption_on_real_pages_changes_no_answer",
              "draws_with_a_seed_are_the_same_in_any_company")),
)

if __name__ == "__main__":
    sys.exit(matrix(ATTACKS, __doc__))
