"""The fault matrix of training: what is broken on purpose, and whether training passes.

Each row names the tests that hold it; they are run together, once, and a row passes where all of
its tests pass. What this computer cannot run (tmpfs without root, a GPU) is said as skipped.

    python benchmarks/faults.py [--only T8] [--soak] [--workers N] [--json FILE]
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
MATRIX, SAVING, MANIFEST = ("tests/train/test_fault_matrix.py",
                            "tests/train/checkpoint/test_checkpoint_saving.py",
                            "tests/train/checkpoint/test_checkpoint_manifest.py")
LAUNCH, RESUME, NUMBERS = ("tests/launch/test_launch_local.py", "tests/test_resume.py",
                           "tests/train/test_faults_numbers.py")


@dataclass(frozen=True)
class Fault:
    """One row: what is broken, and the tests ("file::function") that hold what must follow."""

    name: str
    broken: str
    tests: tuple[str, ...]
    soak: tuple[str, ...] = ()
    """Tests of minutes to hours, run with --soak."""


def _of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)


FAULTS = (
    Fault("T1", "SIGKILL at every point of a save",
          _of(MATRIX, "t1_killed_at_every_point_of_a_save",
              "a_crash_while_one_is_written_in_the_background_leaves_the_one_before")
          + _of(SAVING, "a_crash_at_any_point_leaves_a_whole_one",
                "a_crash_while_one_is_replaced_brings_the_old_one_back")),
    Fault("T2", "killed and resumed three times, anywhere",
          _of(MATRIX, "t2_killed_at_a_boundary_in_accumulation_at_an_epochs_end_and_in_evaluation")
          + _of(RESUME, "killed_three_times_ends_with_the_same_weights"),
          _of("tests/test_soak.py", "a_dozen_kills_at_any_instant")),
    Fault("T3", "SIGTERM, SIGINT, SIGUSR1",
          _of(LAUNCH, "signal_to_the_launcher_saves_and_leaves_resumable",
              "ranks_die_with_their_launcher")
          + _of(RESUME, "sigterm_saves_and_leaves_with_the_resumable_code")),
    Fault("T4", "another layout on resume: 1 - 4 - 2 - 1, DDP - FSDP - TP",
          _of(MATRIX, "t4_another_layout_on_resume_takes_the_same_steps")
          + _of("tests/train/checkpoint/test_checkpoint_layouts.py",
                "what_one_layout_saves_another_reads", "fsdp_over_tensor_parallel_parameters")),
    Fault("T5", "ENOSPC, EIO, EROFS, EDQUOT while saving; a small full disk",
          _of("tests/train/test_checkpointer.py",
              "t5_a_disk_that_refuses_is_an_alert_and_training_goes_on")
          + _of(SAVING, "a_disk_that_refuses_leaves_the_old_one_and_the_next_save_works",
                "a_small_disk_fills_somewhere_and_the_old_one_stays",
                "too_little_space_is_seen_before_anything_is_written")),
    Fault("T6", "cut or flipped shard, wrong hash, no manifest, other run, newer format",
          _of(MANIFEST, "any_flipped_bit_is_found_and_the_previous_one_used",
              "damage_is_named_and_the_one_before_used",
              "where_none_can_be_used_a_run_does_not_start_anew",
              "a_part_that_no_file_holds_is_found")
          + _of(RESUME, "a_damaged_checkpoint_is_named_and_the_previous_one_used")),
    Fault("T7", "a folder used again, with another run's checkpoints in it",
          _of(MANIFEST, "damage_is_named_and_the_one_before_used")
          + _of(SAVING, "the_same_step_again_replaces_what_lies_there")
          + _of("tests/train/test_identity.py",
                "what_decides_the_weights_is")),
    Fault("T8", "a rank dies, hangs, or is slower by 5",
          _of(LAUNCH, "killed_rank_is_named_and_the_run_ends_as_if_unbroken",
              "stopped_rank_is_named_and_the_run_ends_as_if_unbroken",
              "rank_that_sleeps_for_ever_is_the_one_that_is_named",
              "slow_rank_is_named_and_the_run_goes_on",
              "slow_rank_is_launched_again_where_that_was_asked_for",
              "fault_at_every_launch_gives_up_and_names_it")),
    Fault("T9", "NaN, Inf, a spike of 10, tokens beyond the vocabulary",
          _of(NUMBERS, "a_step_that_is_not_finite_moves_nothing_and_is_recorded",
              "a_spike_of_ten_times_follows_the_recipe",
              "a_token_beyond_the_vocabulary_ends_the_run_with_one_clear_error",
              "an_endless_trouble_stops_the_run_as_diverged")),
    Fault("T10", "the date jumps by a day; a stretch that no sensor saw",
          _of("tests/train/test_attempts.py", "a_jump_of_the_date_does_not_reach_the_durations",
              "on_another_computer_the_date_has_to_do_and_never_runs_back")
          + _of("tests/train/test_observers_energy.py",
                "a_stretch_that_a_sensor_missed_is_unmetered_and_never_filled_with_a_model")
          + _of("tests/launch/test_launch_watch.py",
                "silence_before_the_watch_itself_woke_does_not_count")),
    Fault("T11", "the meter vanishes, goes round, or may not be read",
          _of("tests/meter/test_meter_sensors.py", "a_sensor_that_vanishes_is_lost",
              "differences_under_wrap_around_add_up_to_what_was_drawn",
              "a_counter_that_may_not_be_read_is_named")
          + _of("tests/meter/test_meter_energy.py",
                "a_lost_sensor_makes_its_laps_unknown_and_says_so")),
    Fault("T12", "memory runs out",
          _of("tests/train/test_room.py", "memory_that_really_runs_out_is_told",
              "every_kind_of_no_memory_is_one_message_with_three_levers")),
    Fault("T13", "two trainers on one run",
          _of(RESUME, "two_trainers_on_one_folder")
          + _of("tests/train/test_folder.py", "a_second_trainer_is_refused")
          + _of(LAUNCH, "second_launcher_is_refused_and_leaves_no_lock")),
    Fault("T14", "the record's disk hangs",
          _of(NUMBERS, "a_disk_that_hangs_holds_up_no_step_and_loses_nothing")),
    Fault("T15", "100,000 steps leave nothing behind (hundreds without --soak)",
          _of("tests/train/test_soak_steps.py", "hundreds_of_steps_leave_nothing_behind")
          + _of(NUMBERS, "a_long_run_writes_a_bounded_record"),
          _of("tests/train/test_soak_steps.py",
              "a_hundred_thousand_steps_leave_nothing_behind")),
    Fault("T16", "the interval of checkpoints is Young's",
          _of("tests/train/test_checkpointer.py", "t16_the_interval_is_within_a_fifth_of_youngs")
          + _of("tests/train/checkpoint/test_checkpoint_interval.py",
                "the_interval_is_youngs_of_what_was_measured")),
)


@dataclass(frozen=True)
class Outcome:
    """How the tests of one row ended."""

    name: str
    broken: str
    passed: int = 0
    skipped: int = 0
    failed: tuple[str, ...] = field(default=())
    seconds: float = 0.0

    @property
    def said(self) -> str:
        """The verdict in a word or two; a row of which nothing ran is not one that passed."""
        if self.failed:
            return "FAIL"
        more = f", {self.skipped} skipped" if self.skipped else ""
        return f"pass{more}" if self.passed else f"not run{more}"


def functions(faults: Iterable[Fault], soak: bool) -> list[str]:
    """Tests of some rows, each once."""
    return list(dict.fromkeys(one for fault in faults
                              for one in fault.tests + (fault.soak if soak else ())))


def exists(test: str) -> bool:
    """Whether the file has the function: pytest runs nothing at all where one is not there."""
    file, _, name = test.partition("::")
    if not (ROOT / file).exists():
        return False
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}


def run(tests: list[str], workers: int, report: Path) -> None:
    """Runs them with pytest, and leaves its report as XML."""
    command = [sys.executable, "-m", "pytest", *tests, "--tb=short", "-p", "no:cacheprovider",
               f"--junitxml={report}"]
    if workers > 1 and importlib.util.find_spec("xdist"):
        command += ["-n", str(workers)]
    subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr)


def outcomes(faults: Iterable[Fault], report: Path, soak: bool) -> list[Outcome]:
    """Rows as pytest's report has them; a test that it does not have counts as failed."""
    cases: dict[str, list[ElementTree.Element]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("classname", "").replace(".", "/") + ".py"
        cases.setdefault(f"{file}::{case.get('name', '').partition('[')[0]}", []).append(case)
    rows = []
    for fault in faults:
        mine = functions([fault], soak)
        found = [(test, case) for test in mine for case in cases.get(test, [])]
        failed = [test for test in mine if test not in cases]
        failed += [test for test, case in found if {one.tag for one in case} & {"failure", "error"}]
        skipped = sum(case.find("skipped") is not None for _, case in found)
        rows.append(Outcome(fault.name, fault.broken, len(found) - skipped - sum(
            test in failed for test, _ in found), skipped, tuple(dict.fromkeys(failed)),
            sum(float(case.get("time", 0)) for _, case in found)))
    return rows


def matrix(all_rows: Sequence[Fault], description: str | None) -> int:
    """Runs what the command line asks of a matrix, and prints it; 1 where a row fails."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", nargs="+", default=[],
                        help=f"rows, like {all_rows[0].name} {all_rows[7].name}")
    parser.add_argument("--soak", action="store_true", help="with the tests of minutes to hours")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not (ROOT / MATRIX).exists():
        print(f"skipped: the matrix is held by tests, and {ROOT / 'tests'} is not here")
        return 0
    faults = [fault for fault in all_rows if not args.only or fault.name in args.only]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run([one for one in functions(faults, args.soak) if exists(one)], args.workers, report)
        rows = outcomes(faults, report, args.soak) if report.exists() else [
            Outcome(fault.name, fault.broken, failed=fault.tests) for fault in faults]
    for row in rows:
        print(f"{row.name:<4} {row.said:<16} {row.passed:>3} tests {row.seconds:>7.1f} s  "
              f"{row.broken}")
        for test in row.failed:
            print(f"       failed: {test}")
    good = sum(row.said.startswith("pass") for row in rows)
    print(f"{good} of {len(rows)} rows pass, in {time.monotonic() - begin:.0f} s")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) | {"said": row.said} for row in rows],
                                        indent=1))
    return int(good < len(rows))


if __name__ == "__main__":
    sys.exit(matrix(FAULTS, __doc__))
