"""A deployment as a configuration of Ray Serve's LLM applications (`serve deploy ray.yaml`)."""

from __future__ import annotations

from typing import Any

from curbcut.launch.manifests import ADAPTERS_PATH, MODEL_PATH, Deployment, Role, document
from curbcut.launch.manifests import engine_arguments as as_arguments

BUSY = 0.8
"""Share of the batch from which on another server is started."""


def files(deployment: Deployment) -> dict[str, str]:
    """Name of file to its text."""
    job = deployment.run.serve
    arguments: dict[str, Any]
    if job.prefill_replicas:
        builder, arguments = "build_pd_openai_app", {
            "prefill_config": _model(deployment, "prefill", job.prefill_replicas),
            "decode_config": _model(deployment, "decode", job.replicas)}
    else:
        builder, arguments = "build_openai_app", {
            "llm_configs": [_model(deployment, "", job.replicas)]}
    whole = {"applications": [{"name": deployment.name, "route_prefix": "/",
                               "import_path": f"ray.serve.llm:{builder}", "args": arguments}]}
    comment = deployment.comment() + "\n" + "\n".join((
        "", f"Before: the exported model folder as {MODEL_PATH} on each node. Ray asks for no key:"
        " put a gateway", "before it that does. Then: serve deploy ray.yaml"))
    return {"ray.yaml": document(whole, comment)}


def _model(deployment: Deployment, role: Role, replicas: int) -> dict[str, Any]:
    job = deployment.run.serve
    scaling = {"min_replicas": replicas, "max_replicas": replicas if role else 2 * replicas,
               "target_ongoing_requests": max(1, int(BUSY * job.max_batch))}
    found: dict[str, Any] = {
        "model_loading_config": {"model_id": deployment.name, "model_source": MODEL_PATH},
        "deployment_config": {"autoscaling_config": scaling,
                              "max_ongoing_requests": 2 * job.max_batch},
        "engine_kwargs": as_arguments(deployment.words(role))}
    if deployment.adapters:
        found["lora_config"] = {"dynamic_lora_loading_path": f"file://{ADAPTERS_PATH}",
                                "max_num_adapters_per_replica": len(deployment.adapters)}
        found["engine_kwargs"]["enable_lora"] = True
    return found
