"""A deployment as Kubernetes objects: StatefulSets of vLLM, Services, an autoscaler, and a router
where prompts are read apart.
"""

from __future__ import annotations

from typing import Any

from curbcut.launch.manifests import (
    ADAPTERS_PATH,
    GIB,
    MODEL_PATH,
    PORT,
    ROUTER_IMAGE,
    SIDE_PORT,
    Deployment,
    Role,
    document,
)

MORE = 2
"""Times the planned servers that the autoscaler may start."""
WAITING = "8"
"""Waiting requests a server from which on it starts another."""
START_SECONDS = 1800


def files(deployment: Deployment) -> dict[str, str]:
    """Name of file to its text: one file with all objects."""
    name = deployment.name
    first = deployment.comment() + "\n" + "\n".join((
        "", "Before: a PersistentVolumeClaim with the exported model folder "
        f"({name}-model), and the key:",
        f"  kubectl create secret generic {name}-key --from-literal=key=...",
        "Then: kubectl apply -f kubernetes.yaml"))
    objects = [each for role, count in deployment.roles.items()
               for each in (_servers(deployment, role, count), _pods(deployment, role))]
    objects += [_router(deployment)] if deployment.run.serve.prefill_replicas else []
    objects += [_service(deployment), *_scaling(deployment)]
    return {"kubernetes.yaml": "---\n".join(document(each, first if at == 0 else "")
                                            for at, each in enumerate(objects))}


def _called(deployment: Deployment, role: Role) -> str:
    return f"{deployment.name}-{role}" if role else deployment.name


def _labels(deployment: Deployment, role: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": deployment.name,
            "app.kubernetes.io/component": role or "server"}


def _servers(deployment: Deployment, role: Role, count: int) -> dict[str, Any]:
    called, labels = _called(deployment, role), _labels(deployment, role)
    # Names that stay (NAME-0, NAME-1) are how the router finds them.
    return {"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": called, "labels": labels},
            "spec": {"replicas": count, "serviceName": f"{called}-pods",
                     "podManagementPolicy": "Parallel", "selector": {"matchLabels": labels},
                     "template": {"metadata": {"labels": labels},
                                  "spec": _pod(deployment, role)}}}


def _pod(deployment: Deployment, role: Role) -> dict[str, Any]:
    name, cards = deployment.name, deployment.accelerators
    memory = f"{-(-deployment.host_bytes // GIB)}Gi"
    resources: dict[str, Any] = {"requests": {"memory": memory}, "limits": {"memory": memory}}
    if cards:
        resources["limits"]["nvidia.com/gpu"] = cards
    mounts = [{"name": "model", "mountPath": MODEL_PATH, "readOnly": True},
              {"name": "shared-memory", "mountPath": "/dev/shm"}]
    volumes: list[dict[str, Any]] = [
        {"name": "model", "persistentVolumeClaim": {"claimName": f"{name}-model",
                                                    "readOnly": True}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory",
                                               "sizeLimit": f"{2 * max(1, cards)}Gi"}}]
    if deployment.adapters:
        mounts.append({"name": "adapters", "mountPath": ADAPTERS_PATH, "readOnly": True})
        volumes.append({"name": "adapters", "persistentVolumeClaim": {
            "claimName": f"{name}-adapters", "readOnly": True}})
    health = {"httpGet": {"path": "/health", "port": "http"}}
    container = {
        "name": "vllm", "image": deployment.image, "args": deployment.words(role),
        "env": _environment(deployment, role), "ports": [{"name": "http", "containerPort": PORT}],
        "resources": resources, "volumeMounts": mounts,
        "startupProbe": health | {"periodSeconds": 10, "failureThreshold": START_SECONDS // 10},
        "readinessProbe": health | {"periodSeconds": 5},
        "livenessProbe": health | {"periodSeconds": 10, "failureThreshold": 6},
        "securityContext": {"allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]}}}
    return {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 60,
            "containers": [container], "volumes": volumes}


def _environment(deployment: Deployment, role: Role) -> list[dict[str, Any]]:
    """Nothing is fetched from anywhere, nothing told to anybody; the key is a Secret's."""
    found: list[dict[str, Any]] = [
        {"name": "HF_HUB_OFFLINE", "value": "1"}, {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
        {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": f"{deployment.name}-key",
                                                                "key": "key"}}}]
    if role:
        found += [{"name": "VLLM_NIXL_SIDE_CHANNEL_HOST",
                   "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                  {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(SIDE_PORT)}]
    return found


def _pods(deployment: Deployment, role: Role) -> dict[str, Any]:
    """Without an address of its own: a name for each server."""
    return {"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": f"{_called(deployment, role)}-pods",
                         "labels": _labels(deployment, role)},
            "spec": {"clusterIP": "None", "selector": _labels(deployment, role),
                     "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]}}


def _router(deployment: Deployment) -> dict[str, Any]:
    """vLLM's own router sends a prompt to a reader, and its keys and values to a decoder."""
    name, labels = deployment.name, _labels(deployment, "router")
    words = ["--host", "0.0.0.0", "--port", str(PORT), "--policy", "consistent_hash",
             "--vllm-pd-disaggregation", "--kv-connector", "nixl"]
    for role, count in deployment.roles.items():
        called = _called(deployment, role)
        for at in range(count):
            words += [f"--{role}", f"http://{called}-{at}.{called}-pods:{PORT}"]
    container = {"name": "router", "image": ROUTER_IMAGE, "command": ["vllm-router"],
                 "args": words, "ports": [{"name": "http", "containerPort": PORT}],
                 "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                 "readinessProbe": {"httpGet": {"path": "/health", "port": "http"},
                                    "periodSeconds": 5}}
    return {"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": f"{name}-router", "labels": labels},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                     "template": {"metadata": {"labels": labels},
                                  "spec": {"automountServiceAccountToken": False,
                                           "containers": [container]}}}}


def _service(deployment: Deployment) -> dict[str, Any]:
    """What clients reach, inside the cluster only."""
    role = "router" if deployment.run.serve.prefill_replicas else ""
    return {"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": deployment.name, "labels": _labels(deployment, role)},
            "spec": {"type": "ClusterIP", "selector": _labels(deployment, role),
                     "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}


def _scaling(deployment: Deployment) -> list[dict[str, Any]]:
    """An autoscaler by waiting requests; none behind a router, which is told its servers once."""
    if deployment.run.serve.prefill_replicas:
        return []
    count = deployment.run.serve.replicas
    # vLLM's own count, which a Prometheus adapter gives to the cluster's custom metrics.
    metric = {"type": "Pods", "pods": {
        "metric": {"name": "vllm_num_requests_waiting"},
        "target": {"type": "AverageValue", "averageValue": WAITING}}}
    return [{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
             "metadata": {"name": deployment.name, "labels": _labels(deployment, "")},
             "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet",
                                         "name": deployment.name},
                      "minReplicas": count, "maxReplicas": MORE * count, "metrics": [metric]}}]
