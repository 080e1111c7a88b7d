"""MLflow: a store beside the runs, unless MLFLOW_TRACKING_URI names another."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from curbcut.train.observers.trackers import Tracked, mlflow_place

EXPERIMENT = "curbcut"
ID = "curbcut.id"
"""Tag by which a later attempt finds the run."""
MOST = 90
"""Parameters or metrics a batch: MLflow takes 100."""
_STATUS = {"done": "FINISHED", "stopped": "KILLED", "crashed": "FAILED"}


class MLflowStore:
    """Writes through MLflow's client: no server is needed."""

    def __init__(self) -> None:
        self._id = ""

    def begin(self, run: Tracked) -> None:
        """Opens the run, or the one that an earlier attempt opened."""
        # The store of files is kept by MLflow for those who say that they want it.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or mlflow_place(run.runs)
        self._client = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        found = self._client.search_runs([experiment], f"tags.\"{ID}\" = '{run.id}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        made = self._client.create_run(experiment, run_name=run.name, tags={ID: run.id})
        self._id = made.info.run_id
        self._put_params([Param(key, str(value)[:6000]) for key, value in run.config.items()])
        self._put_metrics({f"promised/{key}": value for key, (value, *_) in run.promised.items()},
                          0, 0.0)
        self._client.log_batch(self._id, tags=[
            RunTag(f"promised.{key}", f"{value:.6g} ({low:.6g} to {high:.6g}), {basis}")
            for key, (value, low, high, basis) in run.promised.items()][:MOST])

    def figures(self, step: int, values: Mapping[str, float], time: float) -> None:
        """Points of metrics."""
        self._put_metrics(values, step, time)

    def note(self, step: int, text: str, time: float) -> None:
        """The newest remark, as a tag."""
        self._client.set_tag(self._id, "note", f"step {step}: {text}"[:5000])

    def end(self, state: str, reason: str, measured: Mapping[str, float]) -> None:
        """Finishes it."""
        self._put_metrics({f"measured/{key}": value for key, value in measured.items()}, 0, 0.0)
        for key, value in (("state", state), ("reason", reason)):
            self._client.set_tag(self._id, key, value)
        self._client.set_terminated(self._id, status=_STATUS[state])

    def _put_params(self, params: list[Param]) -> None:
        for first in range(0, len(params), MOST):
            self._client.log_batch(self._id, params=params[first:first + MOST])

    def _put_metrics(self, values: Mapping[str, float], step: int, time: float) -> None:
        metrics = [Metric(key, value, int(time * 1000), step) for key, value in values.items()]
        for first in range(0, len(metrics), MOST):
            self._client.log_batch(self._id, metrics=metrics[first:first + MOST])


def make() -> MLflowStore:
    """The tracker."""
    return MLflowStore()
