"""A run file and a text for the tests that train through the command line on several ranks."""

from __future__ import annotations

import json

from tiny import MODEL_TOML, write_documents

TOML = """
name = "many"
""" + MODEL_TOML + """[machine]
name = "{machine}"
[recipe]
sequence_tokens = 32
micro_batch = 2
global_batch = 8
precision = "fp32"
{recipe}
[train]
text = "{text}"
tokens = 5120
validation_fraction = 0.1
"""


def write_text(folder):
    """A folder of tiny documents."""
    return write_documents(folder / "text", 80)


def losses_of(run_folder):
    """Loss by step, from a run's own record."""
    found = {}
    for path in sorted((run_folder / "metrics").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if row["kind"] == "step":
                found[row["body"]["step"]] = row["body"]["loss"]
    return found
