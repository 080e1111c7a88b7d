"""What a person can give wrong, through the command line: exit code 2, one message with its mend,
no traceback, nothing lost and nothing made."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from curbcut import circle
from curbcut.cli.main import main
from curbcut.spec import Account, Resolved, modelled
from tiny import MODEL_TOML, tiny_machine, tiny_run, write_documents

TOML = """
name = "tiny"
""" + MODEL_TOML + """[recipe]
sequence_tokens = 32
global_batch = 8
micro_batch = 2
precision = "fp32"
checkpoint_every_steps = 4
[train]
text = {text}
tokens = 4096
validation_fraction = 0.1
"""
HUGE_LINE_BYTES = 90_000_000


@pytest.fixture
def refused(capsys):
    """Runs a command that must end in one clear error, and returns its words."""
    def call(*arguments, code=2):
        capsys.readouterr()
        try:
            ended = main([str(argument) for argument in arguments])
        except SystemExit as error:
            ended = error.code
        said = " ".join(capsys.readouterr().err.split())
        assert ended == code, said
        assert said.startswith("curbcut: ") and said.count("curbcut: ") == 1, said
        assert " help: " in said
        assert "Traceback" not in said
        return said
    return call


@pytest.fixture
def text(tmp_path):
    return write_documents(tmp_path / "text", 80)


@pytest.fixture
def toml(tmp_path, text):
    path = tmp_path / "tiny.toml"
    path.write_text(TOML.format(text=json.dumps(str(text))))
    return path


@pytest.fixture
def probed(monkeypatch):
    """No probe of this machine: what is wrong must not wait for it, nor depend on it."""
    monkeypatch.setattr(circle, "_machine", lambda *_: tiny_machine())
    monkeypatch.setattr("curbcut.train.probe.SECONDS", 0.1)
    monkeypatch.setenv("CURBCUT_SENSORS", "off")


@pytest.fixture
def standing(tmp_path, toml, tiny_corpus):
    """A run that is planned and not trained, in a folder of runs."""
    from curbcut.train import folder

    run = tiny_run("tiny", steps=8)
    folder.claim(tmp_path / "runs/tiny", Resolved(run, {}),
                 Account(seconds={"total": modelled(10.0, 2, "test")}))
    return tmp_path / "runs"


def made(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- text ---------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "said"), [
    ("missing", "no such file or folder"), ("empty", "the folder is empty"),
    ("photos", "no file ends in .py")])
def test_text_that_is_not_there(refused, tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"\xff\xd8")
    before = made(tmp_path)
    error = refused("data", tmp_path / name, "--out", tmp_path / "out")
    assert said in error and str(tmp_path / name) in error
    assert made(tmp_path) == before


def test_an_unreadable_suffix_is_named_as_what_to_read(refused, tmp_path):
    (tmp_path / "a.log").write_text("text")
    assert '".log"' in refused("data", tmp_path, "--out", tmp_path / "out")


def test_training_on_missing_text_claims_no_run(refused, probed, tmp_path, toml, text):
    shutil.rmtree(text)
    assert str(text) in refused("go", toml, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs/tiny").exists()


def test_invalid_utf8_is_counted_and_named_and_no_error(capsys, tmp_path, text):
    (text / "latin.txt").write_bytes(b"caf\xe9 au lait\n" * 40)
    assert main(["data", str(text), "--vocab", "300", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "1 x invalid UTF-8" in said and "latin.txt" in said


def peak_bytes_of_data(text, out):
    """Peak memory of `curbcut data`; VmHWM, since ru_maxrss begins with what the parent held."""
    code = ("import sys\nfrom curbcut.cli.main import main\ncode = main(sys.argv[1:])\n"
            "print([x.split()[1] for x in open('/proc/self/status') if 'VmHWM' in x][0], "
            "file=sys.stderr)\nsys.exit(code)")
    done = subprocess.run(
        [sys.executable, "-c", code, "data", str(text), "--vocab", "300", "--out", str(out)],
        capture_output=True, text=True,
        env=dict(os.environ, RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false"))
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stderr.split()[-1]), done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", ["one.txt", "one.jsonl"])
def test_a_longer_line_takes_no_more_memory(tmp_path, text, name):
    peaks = []
    for megabytes in (30, HUGE_LINE_BYTES // 1_000_000):
        with (text / name).open("wb") as file:
            file.write(b'{"text": "' if name.endswith(".jsonl") else b"")
            for i in range(megabytes):
                file.write(f"{i:07} words ".encode() * 71_428)
        peak, said = peak_bytes_of_data(text, tmp_path / str(megabytes))
        assert name in said
        peaks.append(peak)
    assert peaks[1] - peaks[0] < HUGE_LINE_BYTES / 4


@pytest.mark.parametrize(("options", "said"), [
    (["--vocab", "12"], "257"), (["--vocab", "many"], "many"), (["--sufix", ".py"], "--suffix")])
def test_options_of_data(refused, tmp_path, text, options, said):
    assert said in refused("data", text, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


# --- names, units, keys -------------------------------------------------------------------------

@pytest.mark.parametrize(("words", "said"), [
    (["plan", "--on", "8xH10O"], ["'H10O'", "'H100'"]),
    (["plan", "--on", "0xH100"], ["0xH100", "1xH100"]),
    (["plan", "--on", "H100", "--model", "qwen3-8c"], ["'qwen3-8c'", "'Qwen3-8B'"]),
    (["plan", "--on", "H100", "--zone", "FRX"], ["'FRX'", "'FRA'"]),
    (["plan", "--on", "H100", "--hours", "4 minuts"], ["--hours", "'minuts'", "'minutes'"]),
    (["plan", "--on", "H100", "--energy", "3 kWhh"], ["--energy", "'kWhh'", "'kWh'"]),
    (["plan", "--on", "H100", "--budget", "5 EURO"], ["--budget", "'EURO'", "'EUR'"]),
    (["plan", "--onn", "H100"], ["--onn", "did you mean --on"]),
    (["plna"], ["'plna'", "did you mean plan"]),
    (["go", "--run", "x"], ["--run", "--runs"]),
    (["keys", "list", "--leger", "x"], ["--leger", "--ledger"]),
    (["plan", "a.toml", "b.toml"], ["'b.toml'", "too many"]),
])
def test_an_unknown_name_says_the_nearest(refused, words, said):
    error = refused(*words)
    for word in said:
        assert word in error


@pytest.mark.parametrize(("line", "said"), [
    ("[recipe]\nlearnin_rate = 1e-3", ["bad.toml", "'learnin_rate'", "'learning_rate'"]),
    ("[machin]\nname = 'here'", ["bad.toml", "'machin'", "'machine'"]),
    ("[machine]\nname = '8xH10O'", ["'H10O'", "'H100'"]),
    ("[model]\npreset = 'curb-5m'", ["'curb-5m'", "'curb-4m'"]),
    ("[limits]\nseconds = '4 minuts'", ["bad.toml", "limits.seconds", "'minutes'"]),
    ("[recipe]\nprecision = 'bf17'", ["bad.toml", "'bf17'", "'bf16'"]),
    ("[limits", ["bad.toml", "not valid TOML"]),
    ("extends = 'none.toml'", ["none.toml", "no such file"]),
])
@pytest.mark.parametrize("verb", ["plan", "go", "train"])
def test_a_file_that_says_what_nobody_knows(refused, probed, tmp_path, verb, line, said):
    (tmp_path / "bad.toml").write_text(line)
    error = refused(verb, tmp_path / "bad.toml", "--runs", tmp_path / "runs")
    for word in said:
        assert word in error
    assert not (tmp_path / "runs").exists()


# --- limits -------------------------------------------------------------------------------------

UNITS = {"money": " EUR", "seconds": " h", "kwh": " kWh", "kgco2e": " kg"}
OPTIONS = {"money": "--budget", "seconds": "--hours", "kwh": "--energy", "kgco2e": "--carbon"}


@pytest.mark.parametrize("amount", ["0", "-5", "nan", "inf", "-inf"])
@pytest.mark.parametrize("key", UNITS)
def test_a_limit_nobody_can_hold(refused, probed, tmp_path, key, amount):
    said = "greater than 0" if amount in ("0", "-5") else "not a number one can plan with"
    wanted = amount + UNITS[key]
    by_option = refused("plan", "--on", "H100", f"{OPTIONS[key]}={wanted}")
    assert said in by_option and OPTIONS[key] in by_option and wanted in by_option
    file = tmp_path / "limits.toml"
    file.write_text(f'[limits]\n{key} = "{wanted}"')
    for verb in ("plan", "go"):
        by_file = refused(verb, file, "--runs", tmp_path / "runs")
        assert said in by_file and f"limits.toml: limits.{key}" in by_file
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("value", ["0", "-1.0", "nan", "inf", "true"])
@pytest.mark.parametrize("key", ["seconds", "kwh", "kgco2e"])
def test_a_bare_number_in_a_file_is_held_to_the_same(refused, tmp_path, key, value):
    (tmp_path / "bare.toml").write_text(f"[limits]\n{key} = {value}")
    assert f"limits.{key}" in refused("plan", tmp_path / "bare.toml")


def test_a_budget_without_a_currency(refused, tmp_path):
    assert "has no currency" in refused("plan", "--budget", "500")
    (tmp_path / "bare.toml").write_text("[limits]\nmoney = 500")
    assert '"500 EUR"' in refused("plan", tmp_path / "bare.toml")


# --- runs and their folders ---------------------------------------------------------------------

@pytest.mark.parametrize("name", ["../out", "a/b", "..", "/tmp/x", ".hidden", ""])
@pytest.mark.parametrize("verb", ["go", "train", "eval"])
def test_a_name_is_never_a_path(refused, probed, tmp_path, toml, verb, name):
    before = made(tmp_path)
    toml.write_text(toml.read_text().replace('"tiny"', json.dumps(name)))
    error = refused(verb, toml, "--runs", tmp_path / "runs")
    assert "cannot name a run" in error
    assert made(tmp_path) == before


def test_a_run_that_does_not_stand_names_the_nearest(refused, standing):
    assert "did you mean 'tiny'" in refused("go", "tinny", "--runs", standing)


def test_two_runs_of_one_name(refused, probed, standing, toml):
    before = contents(standing)
    error = refused("go", toml, "--runs", standing)
    assert "a run named 'tiny' exists" in error
    assert "--name" in error and "curbcut train tiny" in error
    assert contents(standing) == before


@pytest.mark.parametrize("words", [
    ["go"], ["train"], ["eval"], ["data", "TEXT"], ["keys", "add", "ann"], ["keys", "list"],
    ["report", "tiny"]])
def test_a_file_in_place_of_the_folder_of_runs(refused, probed, tmp_path, text, words):
    place = tmp_path / "afile"
    place.write_text("mine")
    option = "--out" if words[0] == "data" else "--runs"
    words = [text if word == "TEXT" else word for word in words]
    error = refused(*words, option, place)
    assert str(place) in error
    assert place.read_text() == "mine"


@contextmanager
def mounted(place, options):
    """A small or read-only file system at `place`; skips where this process may not mount."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place],
                          capture_output=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip("this process may not mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("words", [["go"], ["data", "TEXT"], ["keys", "add", "ann"]])
def test_no_write_permission(refused, probed, tmp_path, text, toml, words):
    with mounted(tmp_path / "locked", "size=1m,ro") as place:
        option = "--out" if words[0] == "data" else "--runs"
        words = [text if word == "TEXT" else word for word in words]
        if words == ["go"]:
            words = ["go", toml]
        error = refused(*words, option, place / "runs")
        assert "Read-only" in error or "cannot be written" in error
        assert str(place) in error


@pytest.mark.parametrize(("content", "verb"), [
    ("= broken", "go"), ("", "go"), ("", "train"), ("[recipe]\nnonsense = 1", "train")])
def test_the_damaged_file_of_a_standing_run(refused, probed, standing, content, verb):
    (standing / "tiny/run.toml").write_text(content)
    before = contents(standing)
    error = refused(verb, "tiny", "--runs", standing)
    assert "run.toml: is damaged" in error and "--name" in error
    assert contents(standing) == before


@pytest.mark.parametrize("content", [
    "", "[]", "{}", '{"forecast": 3}', '{"forecast": {}, "origins": 3}', "\0\0",
    '{"forecast": {"seconds": {"total": {"value": 3, "low": 5, "high": 1}}}}'])
def test_the_damaged_plan_of_a_standing_run(refused, probed, standing, content):
    (standing / "tiny/plan.json").write_text(content)
    before = contents(standing)
    assert "tiny/plan.json: " in refused("train", "tiny", "--runs", standing)
    assert contents(standing) == before


@pytest.mark.parametrize("content", ["", "[]", "3", '{"resumable": false, "measured": 3}'])
def test_the_damaged_account_of_a_standing_run(refused, standing, monkeypatch, tiny_corpus,
                                               content):
    monkeypatch.setattr(circle, "prepare", lambda *_: tiny_corpus)
    (standing / "tiny/account.json").write_text(content)
    assert "tiny/account.json: " in refused("train", "tiny", "--runs", standing)


@pytest.mark.parametrize("content", ["", "[]", '{"a": 3}', "\0"])
def test_a_damaged_evaluation_is_not_believed(standing, content):
    from curbcut.train.folder import read_evaluation

    (standing / "tiny/evaluation.json").write_text(content)
    assert read_evaluation(standing / "tiny") is None


@pytest.mark.parametrize("words", [
    ["go", "tiny"], ["train", "tiny"], ["plan"], ["report", "tiny"], ["keys", "list"]])
def test_a_damaged_ledger_is_told_before_any_work(refused, probed, standing, words, monkeypatch):
    monkeypatch.setattr("curbcut.train.start.train_run",
                        lambda *_a, **_k: pytest.fail("trained on a damaged ledger"))
    (standing / "ledger.sqlite").write_text("garbage " * 1000)
    before = contents(standing)
    error = refused(*words, "--runs", standing)
    assert "ledger.sqlite" in error and "move it aside" in error
    assert contents(standing) == before


def test_ctrl_c_while_planning_leaves_nothing(capsys, monkeypatch, probed, tmp_path, toml):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(circle, "price", interrupt)
    assert main(["go", str(toml), "--runs", str(tmp_path / "runs")]) == 130
    said = capsys.readouterr().err
    assert "interrupted" in said and "Traceback" not in said
    assert not (tmp_path / "runs").exists()


# --- saving -------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_disk_that_fills_while_saving_keeps_the_previous_checkpoint(
        refused, probed, monkeypatch, tmp_path, toml):
    from curbcut.train.checkpoint import shards

    write, saved = shards.write, []

    def fill(path, held, reached):
        if saved:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(path)
        return write(path, held, reached)

    monkeypatch.setattr(shards, "write", fill)
    runs = tmp_path / "runs"
    error = refused("train", toml, "--runs", runs)
    # the saves of steps 8 and 12 are only told: the one at the end is the end
    assert "step 16 could not be written" in error and "No space left" in error
    assert "it goes on from step-00000004" in error
    assert os.listdir(runs / "tiny/checkpoints") == ["step-00000004"]
    monkeypatch.setattr(shards, "write", write)
    assert main(["train", str(toml), "--runs", str(runs)]) == 0
    assert json.loads((runs / "tiny/account.json").read_text())["resumable"] is False


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [64, 256, 512, 640, 1024])
def test_a_disk_that_is_full_wherever_it_fills(refused, probed, tmp_path, toml, kilobytes):
    with mounted(tmp_path / "disk", f"size={kilobytes}k") as disk:
        error = refused("go", toml, "--runs", disk / "runs")
        assert any(word in error for word in ("No space left", "full", "free")), error
        whole = disk / "runs/tiny/checkpoints"
        from curbcut.train.checkpoint import complete, manifest
        for folder in complete(whole) if whole.exists() else ():
            run = json.loads((folder / "manifest.json").read_text())["manifest"]["run"]
            manifest.check(folder, manifest.read(folder, run).files)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_on_the_console(probed, capsys, tmp_path, toml,
                                                      monkeypatch):
    from curbcut.train import faults

    def interrupted():
        raise KeyboardInterrupt

    runs = tmp_path / "runs"
    faults.arm("save: done", interrupted, step=8)
    assert main(["train", str(toml), "--runs", str(runs)]) == 130
    faults.disarm()
    victim = runs / "tiny/checkpoints/step-00000008/rank-00000.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\1")
    capsys.readouterr()
    assert main(["train", str(toml), "--runs", str(runs)]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert "damagedcheckpointstep-00000008,tryingtheonebeforeit" in said
    assert "step-00000008" in said and "resumingatstep4" in said


# --- serving ------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_port_in_use_names_it_and_the_next_free_one(refused, probed, tmp_path, toml):
    runs = tmp_path / "runs"
    assert main(["train", str(toml), "--runs", str(runs)]) == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refused("serve", "tiny", "--runs", runs, "--port", port)
    assert f"port {port} is in use" in error
    offered = int(error.rpartition("--port ")[2].split()[0])
    assert offered != port and 0 < offered < 65536
