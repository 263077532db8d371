"""The manifests of `deploy/`, as far as they can be checked without a cluster: against the schemas of Kubernetes and
KubeRay with unknown fields refused, and against what they name: options of `cisi run`, images, versions."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from cisi_runtime.cli.run import run

ROOT = Path(__file__).parents[2]
RAYJOB: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "rayjob.yaml").read_text())
JOB: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "job.yaml").read_text())
KUBERNETES = kubernetes_validate.latest_version()
CLUSTER = RAYJOB["spec"]["rayClusterSpec"]
WORKERS = CLUSTER["workerGroupSpecs"][0]
POD_TEMPLATES = {
    "submitter": RAYJOB["spec"]["submitterPodTemplate"],
    "head": CLUSTER["headGroupSpec"]["template"],
    "worker": WORKERS["template"],
    "job": JOB["spec"]["template"],
}
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

Change = Callable[[Any], None]


def _rayjob_validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(Path(__file__).with_name("rayjob_schema.json").read_text())
    path = f"kubernetes-json-schema/v{KUBERNETES}-local-strict/_definitions.json"
    registry = Resource.from_contents(schema_contents(path, KUBERNETES)) @ Registry()
    return jsonschema.Draft202012Validator(schema, registry=registry)


RAYJOB_VALIDATOR = _rayjob_validator()


def _validate(manifest: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError for a field that is unknown, missing or of another type."""
    if manifest["apiVersion"] == "ray.io/v1":
        RAYJOB_VALIDATOR.validate(manifest)
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def _quantity(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()
    return float(number) * UNITS[unit]


def _containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, template in POD_TEMPLATES.items():
        for container in template["spec"]["containers"]:
            yield name, container


def _command(manifest: dict[str, Any]) -> list[str]:
    """What follows `cisi run`; the image's entry point is `cisi`."""
    if manifest is RAYJOB:
        program, name, *arguments = shlex.split(RAYJOB["spec"]["entrypoint"])
        assert program == "cisi"
    else:
        name, *arguments = JOB["spec"]["template"]["spec"]["containers"][0]["args"]
    assert name == "run"
    return arguments


@pytest.mark.parametrize("manifest", [RAYJOB, JOB], ids=["rayjob", "job"])
def test_the_schemas_accept_it(manifest: dict[str, Any]) -> None:
    _validate(manifest)


def test_the_schema_of_a_rayjob_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(RAYJOB_VALIDATOR.schema)


def _rename(old: str, new: str) -> Change:
    def change(part: Any) -> None:
        part[new] = part.pop(old)

    return change


def _set(name: str, value: Any) -> Change:
    def change(part: Any) -> None:
        part[name] = value

    return change


def _remove(name: str) -> Change:
    def change(part: Any) -> None:
        del part[name]

    return change


SPEC = ("spec",)
CLUSTER_PATH = ("spec", "rayClusterSpec")
HEAD = (*CLUSTER_PATH, "headGroupSpec")
WORKER = (*CLUSTER_PATH, "workerGroupSpecs", 0)
WORKER_POD = (*WORKER, "template", "spec")
JOB_POD = ("spec", "template", "spec")
CONTAINER = ("containers", 0)


@pytest.mark.parametrize(
    ("manifest", "path", "change", "message"),
    [
        # A field that is misspelt.
        (RAYJOB, SPEC, _rename("backoffLimit", "backOffLimit"), "'backOffLimit' was unexpected"),
        (RAYJOB, SPEC, _rename("shutdownAfterJobFinishes", "shutdownAfterFinish"), "'shutdownAfterFinish' was unexp"),
        (RAYJOB, CLUSTER_PATH, _set("enableAutoscaling", True), "'enableAutoscaling' was unexpected"),
        (RAYJOB, (*CLUSTER_PATH, "autoscalerOptions"), _set("idleTimeout", 60), "'idleTimeout' was unexpected"),
        (RAYJOB, HEAD, _rename("rayStartParams", "rayStartParameters"), "'rayStartParameters' was unexpected"),
        (RAYJOB, WORKER, _rename("minReplicas", "minReplica"), "'minReplica' was unexpected"),
        (RAYJOB, (*WORKER, "template"), _set("metadata", {"uid": "1"}), "'uid' was unexpected"),
        (RAYJOB, WORKER_POD, _set("serviceAccountname", "cisi"), "'serviceAccountname' was unexpected"),
        (RAYJOB, (*WORKER_POD, *CONTAINER), _rename("image", "imagee"), "'imagee' was unexpected"),
        (RAYJOB, (*WORKER_POD, *CONTAINER, "envFrom", 0, "secretRef"), _set("optionl", True), "'optionl' was unexp"),
        (JOB, SPEC, _rename("backoffLimit", "backOffLimit"), "'backOffLimit' was unexpected"),
        (JOB, (*JOB_POD, "securityContext"), _set("runAsNonroot", True), "'runAsNonroot' was unexpected"),
        (JOB, (*JOB_POD, *CONTAINER, "resources"), _rename("limits", "limit"), "'limit' was unexpected"),
        # A value of another type.
        (RAYJOB, SPEC, _set("backoffLimit", "2"), "'2' is not of type 'integer'"),
        (RAYJOB, SPEC, _set("submissionMode", "K8SJobMode"), "'K8SJobMode' is not one of"),
        (RAYJOB, (*WORKER, "rayStartParams"), _set("num-cpus", 4), "4 is not of type 'string'"),
        (RAYJOB, WORKER, _set("maxReplicas", "4"), "'4' is not of type 'integer'"),
        (RAYJOB, WORKER, _set("template", None), "None is not of type 'object'"),
        (RAYJOB, (*WORKER_POD, *CONTAINER), _set("envFrom", {"secretRef": {}}), "is not of type 'array'"),
        (JOB, SPEC, _set("backoffLimit", "3"), "'3' is not of type 'integer'"),
        (JOB, (*JOB_POD, *CONTAINER), _set("args", "run"), "'run' is not of type 'array'"),
        # A field that is missing.
        (RAYJOB, (), _remove("metadata"), "'metadata' is a required property"),
        (RAYJOB, CLUSTER_PATH, _remove("headGroupSpec"), "'headGroupSpec' is a required property"),
        (RAYJOB, HEAD, _remove("template"), "'template' is a required property"),
        (RAYJOB, WORKER, _remove("groupName"), "'groupName' is a required property"),
        (RAYJOB, WORKER_POD, _remove("containers"), "'containers' is a required property"),
        (RAYJOB, (*WORKER_POD, *CONTAINER), _remove("name"), "'name' is a required property"),
        (JOB, SPEC, _remove("template"), "'template' is a required property"),
        (JOB, JOB_POD, _remove("containers"), "'containers' is a required property"),
        (JOB, (*JOB_POD, *CONTAINER), _remove("name"), "'name' is a required property"),
        (JOB, (*SPEC, "podFailurePolicy", "rules", 1), _remove("action"), "'action' is a required property"),
    ],
)
def test_the_schemas_refuse(
    manifest: dict[str, Any], path: tuple[str | int, ...], change: Change, message: str
) -> None:
    # Aliases of the file are one object in memory: written out first, a change is in one place.
    faulty = json.loads(json.dumps(manifest))
    part = faulty
    for step in path:
        part = part[step]
    change(part)
    with pytest.raises(jsonschema.ValidationError) as refusal:
        _validate(faulty)
    assert message in str(refusal.value.message)


@pytest.mark.parametrize("manifest", [RAYJOB, JOB], ids=["rayjob", "job"])
def test_the_command_is_one_that_cisi_run_takes(manifest: dict[str, Any]) -> None:
    arguments = _command(manifest)
    known = {name for parameter in run.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
    assert used <= known
    run.make_context("cisi run", arguments)


def test_the_workers_are_as_many_as_the_largest_cluster_has_room_for() -> None:
    options = run.make_context("cisi run", _command(RAYJOB)).params
    room = WORKERS["maxReplicas"] * int(WORKERS["rayStartParams"]["num-cpus"])
    assert options["threads"] * options["cpus_per_worker"] == room


def test_the_images_are_targets_of_the_dockerfile() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    for name, container in _containers():
        image, _, tag = container["image"].partition(":")
        assert (image, tag in targets) == ("cisi-net", True), name


def test_the_version_of_ray_is_that_of_the_image() -> None:
    pins = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pins == [CLUSTER["rayVersion"]]


def test_requests_are_within_the_limits() -> None:
    parts = [*_containers(), ("autoscaler", CLUSTER["autoscalerOptions"])]
    for name, part in parts:
        requests, limits = part["resources"]["requests"], part["resources"]["limits"]
        assert set(requests) == set(limits) == {"cpu", "memory"}, name
        for resource, request in requests.items():
            assert _quantity(request) <= _quantity(limits[resource]), name


def test_ray_has_no_more_cpus_than_its_pods_and_the_head_does_no_work() -> None:
    limit = WORKERS["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    assert int(WORKERS["rayStartParams"]["num-cpus"]) <= _quantity(limit)
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert 0 < WORKERS["minReplicas"] <= WORKERS["replicas"] <= WORKERS["maxReplicas"]


def test_every_pod_runs_as_the_user_of_the_image() -> None:
    (user,) = set(re.findall(r"--uid (\d+)", (ROOT / "Dockerfile").read_text()))
    for name, template in POD_TEMPLATES.items():
        context = template["spec"]["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, int(user)), name
    for name, container in [*_containers(), ("autoscaler", CLUSTER["autoscalerOptions"])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name


def test_what_reads_photographs_has_the_credentials() -> None:
    for name in ("head", "worker", "job"):
        pod = POD_TEMPLATES[name]["spec"]
        assert pod["serviceAccountName"] == "cisi"
        (source,) = pod["containers"][0]["envFrom"]
        assert source == {"secretRef": {"name": "cisi-storage", "optional": True}}


def test_the_job_can_write_where_ray_does() -> None:
    pod = JOB["spec"]["template"]["spec"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
    assert set(mounts) == {"/tmp", "/dev/shm"}
    assert mounts["/dev/shm"]["medium"] == "Memory"


def test_wrong_options_are_not_tried_again() -> None:
    policy = JOB["spec"]["podFailurePolicy"]["rules"]
    # Kubernetes refuses the policy with another restartPolicy.
    assert JOB["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = (rule for rule in policy if rule["action"] == "FailJob")
    names = [container["name"] for container in JOB["spec"]["template"]["spec"]["containers"]]
    assert rule["onExitCodes"]["containerName"] in names
    assert rule["onExitCodes"]["values"] == [click.UsageError.exit_code]


def test_the_names_differ() -> None:
    # KubeRay submits through a Job with the RayJob's name.
    assert RAYJOB["metadata"]["name"] != JOB["metadata"]["name"]
