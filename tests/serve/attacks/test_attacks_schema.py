"""What the published document allows, and what it does not, is answered or refused, and never a
fault inside: S17 of the matrix. Needs the program schemathesis.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from curbcut.ledger import access

CHECKS = "not_a_server_error,content_type_conformance,ignored_auth"


def examined(target, secret, examples, folder):
    """Runs schemathesis over the document with `examples` an act; its report."""
    program = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
    if program is None:
        pytest.skip("schemathesis is not installed")
    done = subprocess.run(
        [program, "run", f"{target.url}/openapi.json", "-H", f"Authorization: Bearer {secret}",
         "--max-examples", str(examples), "--checks", CHECKS, "--phases", "examples,fuzzing",
         "--mode", "all", "--seed", "7", "--no-color", "--continue-on-failure",
         "--request-timeout", "60", "--generation-database", "none"],
        cwd=folder, capture_output=True, text=True, env=dict(os.environ, COLUMNS="120"))
    assert "5xx" not in done.stdout and done.returncode == 0, done.stdout[-6000:] + done.stderr
    return int(re.search(r"([\d,]+) generated", done.stdout)[1].replace(",", ""))


def test_a_few_examples_of_each_act(target, tmp_path):
    assert examined(target, target.secret, 5, tmp_path) > 30
    target.at_rest()


@pytest.mark.soak
@pytest.mark.parametrize("role", ["user", "admin"])
def test_ten_thousand_examples(target, tmp_path, role):
    """About a thousand of each act; as an admin also of those that manage access."""
    secret = access.issue_key(target.ledger, f"examiner-{role}", role=role, actor="test")
    assert examined(target, secret, 1000, tmp_path) > 5_000
    target.at_rest()
