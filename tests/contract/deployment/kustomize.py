"""The part of kustomize that k8s/ uses, so that its overlays can be built and checked without any binary.

Resources and components are followed; namespace, merge patches, replicas and images are applied.
`test_k8s.py` compares the result with `kubectl kustomize` wherever that exists.
"""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
KNOWN_FIELDS = {
    "apiVersion", "kind", "namespace", "resources", "components", "patches", "replicas", "images"
}  # fmt: skip
CLUSTER_SCOPED = {"Namespace", "PriorityClass"}
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
}


def build(folder: Path) -> list[Object]:
    """Build the kustomization in `folder`.

    Raises:
        ValueError: It uses a field that is not implemented here.
    """
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := set(plan) - KNOWN_FIELDS:
        raise ValueError(f"{folder}: {sorted(unknown)} not supported")
    objects: list[Object] = []
    for name in plan.get("resources", []):
        objects += _load(folder / name)
    for name in plan.get("components", []):
        objects = _overlay(objects, (folder / name).resolve())
    return _transform(objects, plan, folder)


def _overlay(objects: list[Object], component: Path) -> list[Object]:
    plan = yaml.safe_load((component / "kustomization.yaml").read_text())
    for name in plan.get("resources", []):
        objects = objects + _load(component / name)
    return _transform(objects, plan, component)


def _load(path: Path) -> list[Object]:
    if path.is_dir():
        return build(path.resolve())
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _transform(objects: list[Object], plan: Object, folder: Path) -> list[Object]:
    for patch in plan.get("patches", []):
        content = yaml.safe_load((folder / patch["path"]).read_text())
        objects = [merge(it, content) if _is_target(it, patch, content) else it for it in objects]
    for it in objects:
        if "namespace" in plan:
            _set_namespace(it, plan["namespace"])
        for replica in plan.get("replicas", []):
            if it["kind"] in ("Deployment", "StatefulSet") and it["metadata"]["name"] == replica["name"]:
                it["spec"]["replicas"] = replica["count"]
        for container in pod_containers(it):
            container["image"] = _image(container["image"], plan.get("images", []))
    return objects


def _is_target(it: Object, patch: Object, content: Object) -> bool:
    target = patch.get("target") or {"kind": content["kind"], "name": content["metadata"]["name"]}
    return bool(
        re.fullmatch(target.get("kind", ".*"), it["kind"])
        and re.fullmatch(target.get("name", ".*"), it["metadata"]["name"])
    )


def _set_namespace(it: Object, namespace: str) -> None:
    if it["kind"] == "Namespace":
        it["metadata"]["name"] = namespace
    elif it["kind"] not in CLUSTER_SCOPED:
        it["metadata"]["namespace"] = namespace


def _image(image: str, rules: list[Object]) -> str:
    name, _, tag = image.partition(":")
    for rule in rules:
        if rule["name"] == name:
            name, tag = rule.get("newName", name), str(rule.get("newTag", tag))
    return f"{name}:{tag}" if tag else name


def pod_template(it: Object) -> Object | None:
    """The pod template of a workload, or None for anything else."""
    if it["kind"] in ("Deployment", "StatefulSet", "Job", "DaemonSet"):
        return Object(it["spec"]["template"])
    return None


def pod_containers(it: Object) -> list[Object]:
    """Every container of a workload's pods; none for anything else."""
    template = pod_template(it)
    if template is None:
        return []
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def merge(base: Object, patch: Object) -> Object:
    """Strategic merge: mappings field by field, keyed lists element by element, all else replaced."""
    result = copy.deepcopy(base)
    for key, value in patch.items():
        if key in ("apiVersion", "kind"):
            continue
        if key == "metadata" and "name" in value:
            value = {name: item for name, item in value.items() if name != "name"}
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        elif key in MERGE_KEYS and isinstance(result.get(key), list):
            result[key] = _merge_list(result[key], value, MERGE_KEYS[key])
        else:
            result[key] = copy.deepcopy(value)
    return result


def _merge_list(base: list[Object], patch: list[Object], key: str) -> list[Object]:
    merged = {item[key]: item for item in base}
    for item in patch:
        merged[item[key]] = merge(merged[item[key]], item) if item[key] in merged else copy.deepcopy(item)
    return list(merged.values())
