"""A server with room for tools, on a model with a chat template and special tokens."""

import json

import pytest

from curbcut.model import weights
from curbcut.model.decoder import Decoder
from curbcut.serve.server import serving
from curbcut.spec import ModelShape
from pretend import byte_tokenizer

SPECIALS = ["<|im_start|>", "<|im_end|>"]
TEMPLATE = """{%- if tools %}<|im_start|>system
<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools><tool_call><|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="session")
def talker(tmp_path_factory):
    """A folder like `folder`, whose model talks in messages."""
    import torch
    torch.set_num_threads(1)
    base = tmp_path_factory.mktemp("talkers") / "talker"
    base.mkdir()
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.save(str(base / "tokenizer.json"))
    shape = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=264,
                       context_tokens=2048, qk_norm=True)
    torch.manual_seed(5)
    model = Decoder(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15)
    weights.save(model, shape, base / "model", base / "tokenizer.json")
    (base / "model" / "chat_template.jinja").write_text(TEMPLATE)
    config = base / "model" / "generation_config.json"
    known = json.loads(config.read_text()) if config.exists() else {}
    config.write_text(json.dumps(known | {"eos_token_id": tokenizer.token_to_id("<|im_end|>")}))
    return base / "model"


@pytest.fixture(scope="session")
def talk(talker):
    """A server on it."""
    with serving(talker, name="talker", max_batch=4) as session:
        yield session
