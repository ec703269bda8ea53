"""The overlays, built and held against the Kubernetes schemas and against rules of our own."""

import copy
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from audiofoundation.settings import MetricsSettings, TelemetrySettings

from .kustomize import MERGE_KEYS, Object, build, pod_containers, pod_template
from .paths import ROOT, SERVICES

OVERLAYS = ROOT / "k8s" / "overlays"
KUBERNETES = ("1.30", "1.37")
CUSTOM = {"keda.sh/v1alpha1"}  # needs KEDA's own definitions, which no schema here covers
WORKERS = {"ingest-worker", "preprocess-worker", "train-supervisor"}
KNOWN_SETTINGS = {f"AF_METRICS__{name.upper()}" for name in MetricsSettings.model_fields}


@pytest.fixture(scope="module", params=["local", "production"])
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(overlay: str) -> list[Object]:
    return build(OVERLAYS / overlay)


def of_kind(objects: Iterable[Object], *kinds: str) -> dict[str, Object]:
    return {it["metadata"]["name"]: it for it in objects if it["kind"] in kinds}


def workloads(objects: Iterable[Object]) -> dict[str, Object]:
    return {it["metadata"]["name"]: it for it in objects if pod_template(it) is not None}


def pod_spec(it: Object) -> Object:
    template = pod_template(it)
    assert template is not None
    return Object(template["spec"])


def is_selected(selector: Object, it: Object) -> bool:
    template = pod_template(it)
    wanted = selector.get("matchLabels", {}).items()
    return template is not None and wanted <= template["metadata"]["labels"].items()


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_follows_its_schema(objects: list[Object], version: str) -> None:
    for it in objects:
        if it["apiVersion"] not in CUSTOM:
            kubernetes_validate.validate(copy.deepcopy(it), version, strict=True)


def test_the_schemas_refuse_what_is_wrong(objects: list[Object]) -> None:
    broken = copy.deepcopy(of_kind(objects, "Deployment")["infer"])
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[-1], strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="compares with kubectl kustomize")
def test_builds_as_kubectl_does(overlay: str, objects: list[Object]) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", OVERLAYS / overlay], capture_output=True, text=True, timeout=60, check=True
    )

    theirs = {_identity(it): _sorted(it) for it in yaml.safe_load_all(done.stdout)}
    assert {_identity(it): _sorted(it) for it in objects} == theirs


def test_every_object_is_there_once(objects: list[Object]) -> None:
    identities = [_identity(it) for it in objects]

    assert len(identities) == len(set(identities))


def test_runs_the_four_services_and_their_workers(objects: list[Object]) -> None:
    assert set(of_kind(objects, "Deployment")) == {*SERVICES, *WORKERS}
    assert set(of_kind(objects, "Job")) == {"migrate"}


def test_every_pod_meets_the_restricted_standard(objects: list[Object]) -> None:
    labels = of_kind(objects, "Namespace")["audiofoundation"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, it in workloads(objects).items():
        spec = pod_spec(it)
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume], name


def test_every_container_is_confined_and_bounded(objects: list[Object]) -> None:
    for name, it in workloads(objects).items():
        for container in pod_containers(it):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert requests["memory"] == limits["memory"], name
            assert "cpu" in requests, name
            assert "cpu" not in limits, name


def test_data_and_tmp_are_writable_though_the_root_is_not(objects: list[Object]) -> None:
    for name in (*SERVICES, *WORKERS):
        it = workloads(objects)[name]
        mounts = {mount["mountPath"]: mount["name"] for mount in pod_containers(it)[0]["volumeMounts"]}
        assert {"/tmp", "/var/lib/audiofoundation"} <= set(mounts), name
        assert set(mounts.values()) == {volume["name"] for volume in pod_spec(it)["volumes"]}, name


def test_images_are_versioned(objects: list[Object]) -> None:
    for name, it in workloads(objects).items():
        for container in pod_containers(it):
            assert ":" in container["image"].rpartition("/")[2], name
            assert not container["image"].endswith(":latest"), name


def test_apis_are_probed_and_liveness_asks_no_store(objects: list[Object]) -> None:
    for service in SERVICES:
        (container,) = pod_containers(of_kind(objects, "Deployment")[service])
        assert container["startupProbe"]["httpGet"]["path"] == "/health/live"
        assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
        assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_pods_get_time_to_drain(objects: list[Object]) -> None:
    for name, it in of_kind(objects, "Deployment").items():
        least = {"train-supervisor": 120}.get(name, 90 if name in WORKERS else 45)
        assert pod_spec(it)["terminationGracePeriodSeconds"] >= least, name


def test_one_supervisor_holds_the_runs_volume(objects: list[Object]) -> None:
    supervisor = of_kind(objects, "Deployment")["train-supervisor"]

    assert supervisor["spec"]["replicas"] == 1
    assert supervisor["spec"]["strategy"] == {"type": "Recreate"}
    claims = [
        it["persistentVolumeClaim"]["claimName"]
        for it in pod_spec(supervisor)["volumes"]
        if "persistentVolumeClaim" in it
    ]
    assert claims == list(of_kind(objects, "PersistentVolumeClaim"))


def test_services_and_policies_select_pods_that_exist(objects: list[Object]) -> None:
    pods = workloads(objects).values()
    for name, service in of_kind(objects, "Service").items():
        assert any(is_selected({"matchLabels": service["spec"]["selector"]}, it) for it in pods), name
    for name, policy in of_kind(objects, "NetworkPolicy").items():
        assert any(is_selected(policy["spec"]["podSelector"], it) for it in pods), name


def test_service_ports_are_ports_of_their_pods(objects: list[Object]) -> None:
    for name, service in of_kind(objects, "Service").items():
        (it,) = (
            it for it in workloads(objects).values() if is_selected({"matchLabels": service["spec"]["selector"]}, it)
        )
        open_ports = {key for port in pod_containers(it)[0]["ports"] for key in (port["name"], port["containerPort"])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports, name


def test_network_is_denied_by_default_both_ways(objects: list[Object]) -> None:
    deny = of_kind(objects, "NetworkPolicy")["default-deny"]["spec"]

    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_only_what_fetches_urls_reaches_the_internet(objects: list[Object]) -> None:
    pods = workloads(objects)
    for name, policy in of_kind(objects, "NetworkPolicy").items():
        for block in _ip_blocks(policy):
            if block["cidr"] == "0.0.0.0/0":
                reached = {pod for pod, it in pods.items() if is_selected(policy["spec"]["podSelector"], it)}
                assert reached == {"ingest-worker", "infer"}, name
                assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(block["except"])


def test_whoever_uses_the_stores_may_reach_them(objects: list[Object]) -> None:
    policy = of_kind(objects, "NetworkPolicy")["to-stores"]
    for name, it in workloads(objects).items():
        if name in {*SERVICES, *WORKERS, "migrate"}:
            assert is_selected(policy["spec"]["podSelector"], it), name


def test_whatever_says_that_it_is_scraped_answers_and_may_be_reached(overlay: str, objects: list[Object]) -> None:
    scraped = {
        name: int(template["metadata"]["annotations"]["prometheus.io/port"])
        for name, it in workloads(objects).items()
        if (template := pod_template(it)) and "prometheus.io/scrape" in template["metadata"].get("annotations", {})
    }
    doors = [it["spec"] for name, it in of_kind(objects, "NetworkPolicy").items() if name.endswith("-metrics")]

    assert scraped == {**dict.fromkeys(SERVICES, 8000), "ingest-worker": 9464, "preprocess-worker": 9464}
    for name, port in scraped.items():
        it = workloads(objects)[name]
        (container,) = pod_containers(it)
        assert port in {open_port["containerPort"] for open_port in container["ports"]}, name
        if name in WORKERS:
            setting = f"AF_METRICS__{name.replace('-', '_').upper()}_PORT"
            assert {"name": setting, "value": str(port)} in container["env"], name
            assert setting in KNOWN_SETTINGS
        if overlay == "production":
            (door,) = [door for door in doors if is_selected(door["podSelector"], it)]
            assert door["ingress"][0]["ports"] == [{"port": port, "protocol": "TCP"}], name


def test_the_component_traces_names_a_collector_and_opens_the_way_to_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    file = tmp_path / "k8s" / "overlays" / "production" / "kustomization.yaml"
    file.write_text(file.read_text().replace("components:\n", "components:\n  - ../../components/traces\n"))
    objects = build(file.parent)

    data = of_kind(objects, "ConfigMap")["platform"]["data"]
    settings = TelemetrySettings(otlp_endpoint=data["AF_TELEMETRY__OTLP_ENDPOINT"])
    host, port = settings.otlp_endpoint.removeprefix("http://").split(":")
    policy = of_kind(objects, "NetworkPolicy")["to-collector"]
    kubernetes_validate.validate(copy.deepcopy(policy), KUBERNETES[-1], strict=True)
    (rule,) = policy["spec"]["egress"]
    assert rule["ports"] == [{"port": int(port), "protocol": "TCP"}]
    assert host.endswith("." + rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
    for name in (*SERVICES, *WORKERS):
        assert is_selected(policy["spec"]["podSelector"], workloads(objects)[name]), name
    without = of_kind(build(OVERLAYS / "production"), "ConfigMap")["platform"]["data"]
    assert "AF_TELEMETRY__OTLP_ENDPOINT" not in without


def test_a_disruption_budget_stands_only_where_there_are_replicas(objects: list[Object]) -> None:
    for name in of_kind(objects, "PodDisruptionBudget"):
        assert of_kind(objects, "Deployment")[name]["spec"]["replicas"] > 1


def test_secrets_are_named_but_never_included(objects: list[Object]) -> None:
    assert not of_kind(objects, "Secret")
    for name in (*SERVICES, *WORKERS, "migrate"):
        (container,) = pod_containers(workloads(objects)[name])
        assert {"secretRef": {"name": "platform"}} in container["envFrom"]


def test_gpus_are_asked_for_in_production_only(overlay: str, objects: list[Object]) -> None:
    asking = {
        name for name, it in workloads(objects).items()
        for container in pod_containers(it) if "nvidia.com/gpu" in container["resources"]["limits"]
    }  # fmt: skip

    assert asking == ({"train-supervisor"} if overlay == "production" else set())


def test_autoscaling_names_deployments_and_secrets_that_exist() -> None:
    objects = build(OVERLAYS / "production")
    scaled = of_kind(objects, "ScaledObject")

    assert set(scaled) == {"ingest-worker", "preprocess-worker"}
    for it in scaled.values():
        assert it["spec"]["scaleTargetRef"]["name"] in of_kind(objects, "Deployment")
        assert it["spec"]["triggers"][0]["authenticationRef"]["name"] in of_kind(objects, "TriggerAuthentication")
        assert it["spec"]["minReplicaCount"] >= 1


def test_the_local_secrets_fit_what_the_pods_name() -> None:
    done = subprocess.run([ROOT / "scripts" / "k8s-secrets.sh"], capture_output=True, text=True, timeout=30, check=True)
    documents = list(yaml.safe_load_all(done.stdout))
    secrets = of_kind(documents, "Secret")

    for it in documents:
        kubernetes_validate.validate(copy.deepcopy(it), KUBERNETES[-1], strict=True)
    for it in workloads(build(OVERLAYS / "local")).values():
        for container in pod_containers(it):
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    reference = variable["valueFrom"]["secretKeyRef"]
                    assert reference["key"] in secrets[reference["name"]]["stringData"]
    assert set(secrets["platform"]["stringData"]) == {
        "AF_STORAGE__ACCESS_KEY",
        "AF_STORAGE__SECRET_KEY",
        "AF_QUEUE__URL",
        "AF_CATALOG__URL",
        "AF_SERVING__API_KEYS",
    }


def _identity(it: Object) -> tuple[str, str, str]:
    return it["apiVersion"], it["kind"], it["metadata"]["name"]


def _sorted(value: Any, field: str = "") -> Any:
    """Order keyed lists by their key: kustomize puts what a patch adds first, we put it last."""
    if isinstance(value, dict):
        return {key: _sorted(item, key) for key, item in value.items()}
    if isinstance(value, list):
        items = [_sorted(item) for item in value]
        return sorted(items, key=lambda it: it[MERGE_KEYS[field]]) if field in MERGE_KEYS else items
    return value


def _ip_blocks(policy: Object) -> list[Object]:
    return [peer["ipBlock"] for rule in policy["spec"].get("egress", []) for peer in rule["to"] if "ipBlock" in peer]


def test_the_builder_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("namePrefix: x-\n")

    with pytest.raises(ValueError, match="namePrefix"):
        build(tmp_path)
