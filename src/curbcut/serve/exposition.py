"""Prometheus' text format: families of samples, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Family:
    """One metric: its samples as suffix of the name, labels and value."""

    name: str
    kind: str
    what: str
    samples: list[tuple[str, Mapping[str, str], float]]

    def text(self) -> str:
        """Its lines. In this format the type is said of a counter's whole name."""
        name = self.name + ("_total" if self.kind == "counter" else "")
        lines = [f"# HELP {name} {self.what}", f"# TYPE {name} {self.kind}"]
        for suffix, labels, value in self.samples:
            said = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
            number = repr(int(value)) if value == int(value) else repr(value)
            lines.append(f"{self.name}{suffix}{{{said}}} {number}")
        return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
