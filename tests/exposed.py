"""Metrics as Prometheus' own reader has them."""

from __future__ import annotations

import pytest


def parsed(text: str) -> dict[tuple[object, ...], float]:
    """Values by (sample's name, labels), as Prometheus' own reader has them."""
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus-client is absent")
    return {(sample.name, *sorted(sample.labels.items())): sample.value
            for family in parser.text_string_to_metric_families(text) for sample in family.samples}
