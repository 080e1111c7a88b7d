import json
import stat

import pytest

from callers import caller
from curbcut.errors import InputError
from curbcut.ledger import audit, open_ledger
from curbcut.serve.gateway.prompts import PromptLog


def test_prompts_are_written_for_their_owner_and_the_audit_chain_tells(tmp_path):
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        file = tmp_path / "prompts.jsonl"
        file.touch(0o644)
        for path in ("/v1/completions", "/v1/embeddings"):
            log = PromptLog(file, ledger, actor="cli:ann")
            log.write(caller("ann"), path, {"prompt": "zwölf\nBoxkämpfer"})
            log.write(None, path, {})
            log.close()
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["key"] for line in lines] == ["ann", None, "ann", None]
        assert lines[0]["body"] == {"prompt": "zwölf\nBoxkämpfer"}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        told = [entry for entry in audit.entries(ledger) if entry.action == "prompts.logged"]
        assert [(one.actor, one.subject) for one in told] == [("cli:ann", f"file:{file}")] * 2
        with pytest.raises(InputError, match="--log-prompts"):
            PromptLog(tmp_path, ledger, actor="cli:ann")
