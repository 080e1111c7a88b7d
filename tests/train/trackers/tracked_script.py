"""Two attempts at one run, the first killed, told to one tracker; prints what the tool then holds.

    python tracked_script.py TOOL FOLDER
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

from curbcut.ledger import codec
from curbcut.ledger.inbox import FOLDER, Writer
from curbcut.spec import Account, Resolved, measured, modelled
from curbcut.train.observers import trackers
from curbcut.train.observers.trackers import identity, mirror
from tiny import tiny_run


def attempt(folder, first, steps, ended):
    """Lines of steps first+10, first+20, ...; `ended`: in order, and an account with them."""
    promised = Account(usd={"total": modelled(0.5, 2, "test")}, kwh={"facility": measured(0, "")})
    with Writer(folder / FOLDER, folder.name, "train") as writer:
        writer.write_run(Resolved(tiny_run(folder.name), {}))
        writer.write_account("train", "forecast", promised)
        writer.write("start", {"step": first, "steps": 40})
        for step in range(first + 10, first + 10 * steps + 1, 10):
            writer.write("step", {"step": step, "loss": 5 - step / 10, "tokens": step * 100,
                                  "gradient_norm": float("nan"), "step_seconds": 0.5,
                                  "seconds": {"steps": step / 2}})
        writer.write("evaluation", {"step": step, "bits_per_byte": 2.5})
        writer.write("trouble", {"step": step, "what": "loss spike", "applied": False})
        if ended:
            writer.write("end", {"step": step, "reason": "all tokens trained", "resumable": False})
            done = Account(usd={"total": measured(0.25, "clock")})
            (folder / mirror.ACCOUNT).write_text(json.dumps({"measured": codec.plain(done)}))
    return writer.path


def tell(tool, folder, file, here):
    told = mirror.Mirror(trackers.tracker(tool), folder, identity.of(folder))
    mirror.follow(told, file, 0, lambda: here, lambda seconds: None)


def wandb(folder):
    """Its service writes on for a moment after a run has finished."""
    for _ in range(100):
        held = written(folder)
        if all("exit" in one for one in held):
            break
        time.sleep(0.1)
    return held


def written(folder):
    from wandb.proto import wandb_internal_pb2

    held = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, at, whole, one = path.read_bytes(), 7, b"", {"points": [], "notes": [], "summary": {}}
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            _, size, kind = struct.unpack("<IHB", data[at:at + 7])
            whole, at = whole + data[at + 7:at + 7 + size], at + 7 + size
            if kind not in (1, 4):
                continue
            record, whole = wandb_internal_pb2.Record.FromString(whole), b""
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json)
                   for i in record.history.item}
            one["points"] += [[row["step"], row["loss"]]] if "loss" in row else []
            one["notes"] += [row["note"]] if "note" in row else []
            one["summary"] |= {i.key or "/".join(i.nested_key): json.loads(i.value_json)
                               for i in record.summary.update}
            if record.HasField("run"):
                one |= {"id": record.run.run_id, "name": record.run.display_name, "config": {
                    i.key: json.loads(i.value_json) for i in record.run.config.update}}
            if record.HasField("exit"):
                one["exit"] = record.exit.exit_code
        held.append(one)
    return held


def mlflow(folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(trackers.mlflow_place(folder.parent))
    ids = [e.experiment_id for e in client.search_experiments() if e.name == "curbcut"]
    return [{"status": run.info.status, "name": run.info.run_name, "config": run.data.params,
             "tags": run.data.tags, "metrics": run.data.metrics, "points": [
                 [m.step, m.value] for m in client.get_metric_history(run.info.run_id, "loss")]}
            for run in client.search_runs(ids)]


def tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    texts = {tag: [e.tensor_proto.string_val[0].decode() for e in events.Tensors(tag)]
             for tag in events.Tags()["tensors"] if "session" not in tag}
    return {"points": [[e.step, e.value] for e in events.Scalars("loss")], "texts": texts,
            "scalars": {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}}


def trackio(folder):
    from trackio.sqlite_storage import SQLiteStorage

    return [{"name": name, "config": SQLiteStorage.get_run_config("curbcut", name),
             "rows": SQLiteStorage.get_logs("curbcut", name)}
            for name in SQLiteStorage.get_runs("curbcut")]


if __name__ == "__main__":
    tool, place = sys.argv[1], Path(sys.argv[2])
    tell(tool, place, attempt(place, 0, 3, ended=False), here=False)
    crashed = globals()[tool](place)
    time.sleep(1.1 if tool == "wandb" else 0)  # its folders are named by the second
    tell(tool, place, attempt(place, 20, 2, ended=True), here=True)
    print(json.dumps({"id": identity.of(place), "crashed": crashed, "done": globals()[tool](place)},
                     default=str))
