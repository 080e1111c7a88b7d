"""A deployment as a docker compose file: one machine, a port for each server."""

from __future__ import annotations

from typing import Any

from curbcut.launch.manifests import (
    ADAPTERS_PATH,
    MODEL_PATH,
    PORT,
    ROUTER_IMAGE,
    SIDE_PORT,
    Deployment,
    Role,
    document,
)


def files(deployment: Deployment) -> dict[str, str]:
    """Name of file to its text."""
    services: dict[str, Any] = {}
    first = 0
    apart = bool(deployment.run.serve.prefill_replicas)
    for role, count in deployment.roles.items():
        for at in range(count):
            name = f"{role or 'server'}-{at}"
            services[name] = _server(deployment, role, name, first, None if apart else PORT + at)
            first += deployment.accelerators
    if apart:
        services["router"] = _router(deployment)
    comment = deployment.comment() + "\n" + "\n".join((
        "", "Before: MODEL_FOLDER (the exported model) and VLLM_API_KEY in a file .env beside this "
        "one that only", "you can read. Then: docker compose up -d"))
    return {"compose.yaml": document({"name": deployment.name, "services": services}, comment)}


def _server(deployment: Deployment, role: Role, name: str, first: int,
            port: int | None) -> dict[str, Any]:
    """Ports are opened to this machine alone: a gateway stands before what others reach."""
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
                   "VLLM_API_KEY": "${VLLM_API_KEY:?set it in .env}"}
    if role:
        environment |= {"VLLM_NIXL_SIDE_CHANNEL_HOST": name,
                        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(SIDE_PORT)}
    volumes = ["${MODEL_FOLDER:?set it in .env}:" + f"{MODEL_PATH}:ro"]
    if deployment.adapters:
        volumes.append("${ADAPTERS_FOLDER:?set it in .env}:" + f"{ADAPTERS_PATH}:ro")
    cards = deployment.accelerators
    found: dict[str, Any] = {
        "image": deployment.image, "command": deployment.words(role), "environment": environment,
        "volumes": volumes, "shm_size": f"{2 * max(1, cards)}gb", "restart": "unless-stopped",
        "mem_limit": deployment.host_bytes}
    if port is not None:
        found["ports"] = [f"127.0.0.1:{port}:{PORT}"]
    if cards:
        found["deploy"] = {"resources": {"reservations": {"devices": [
            {"driver": "nvidia", "device_ids": [str(first + at) for at in range(cards)],
             "capabilities": ["gpu"]}]}}}
    return found


def _router(deployment: Deployment) -> dict[str, Any]:
    words = ["vllm-router", "--host", "0.0.0.0", "--port", str(PORT), "--policy",
             "consistent_hash", "--vllm-pd-disaggregation", "--kv-connector", "nixl"]
    for role, count in deployment.roles.items():
        for at in range(count):
            words += [f"--{role}", f"http://{role}-{at}:{PORT}"]
    return {"image": ROUTER_IMAGE, "command": words, "ports": [f"127.0.0.1:{PORT}:{PORT}"],
            "restart": "unless-stopped",
            "depends_on": [f"{role}-{at}" for role, count in deployment.roles.items()
                           for at in range(count)]}
