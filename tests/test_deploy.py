"""Tests of the files in `deploy/` that need no cluster: schema, rendered chart, and the systemd unit."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from itrex_sweet.cli import build_parser

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the extra [docs]")

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
CHART = DEPLOY / "helm" / "itrex-sweet"
OTHER_VALUES = {
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "apiKeySecret": "keys",
    "service": {"grpcPort": 9000},
    "otlpEndpoint": "http://collector:4318",
    "args": ["--under-load", "degrade"],
    "imagePullSecrets": [{"name": "registry"}],
    "podAnnotations": {"a": "1"},
    "nodeSelector": {"pool": "cpu"},
    "tolerations": [{"key": "cpu"}],
}


def plain_files():
    return [path for path in sorted(DEPLOY.rglob("*.y*ml")) if path.parent.name != "templates"]


@pytest.mark.parametrize("path", plain_files(), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_files_are_yaml(path):
    assert all(isinstance(each, dict) for each in yaml.safe_load_all(path.read_text(encoding="utf-8")))


def commands() -> dict[str, list[str]]:
    """Returns the arguments of `itrex-sweet` in each example."""
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    runtime = yaml.safe_load((DEPLOY / "kserve" / "serving-runtime.yaml").read_text())
    unit = (DEPLOY / "systemd" / "itrex-sweet.service").read_text()
    return {
        "compose": compose["services"]["classifier"]["command"],
        "kserve": runtime["spec"]["containers"][0]["args"],
        "systemd": shlex.split(re.search(r"^ExecStart=\S+ (.*)$", unit, re.MULTILINE)[1]),
    }


@pytest.mark.parametrize("name", ["compose", "kserve", "systemd"])
def test_commands_are_valid(name, monkeypatch):
    arguments = build_parser().parse_args(commands()[name])
    assert arguments.parser.prog.endswith(" serve") and arguments.json_output


def test_the_kserve_example_uses_its_runtime():
    runtime, service = (
        yaml.safe_load((DEPLOY / "kserve" / name).read_text())
        for name in ("serving-runtime.yaml", "inference-service.yaml")
    )
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [each["name"] for each in runtime["spec"]["supportedModelFormats"]]
    (container,) = runtime["spec"]["containers"]
    port = container["ports"][0]["containerPort"]
    assert container["args"][container["args"].index("--port") + 1] == str(port)
    assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} == {port}


def test_values_of_the_chart_exist():
    """Every value that a template reads has a default."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    used = set()
    for template in (CHART / "templates").iterdir():
        used |= set(re.findall(r"\.Values((?:\.\w+)+)", template.read_text()))
    assert len(used) > 15
    for path in used:
        found = values
        for name in path.split(".")[1:]:
            assert name in found, path
            found = found[name]


def render(values: dict, folder: Path) -> dict[str, dict]:
    """Returns the objects of the chart by kind, rendered by Helm or by its library."""
    changed = folder / "values.yaml"
    changed.write_text(yaml.safe_dump(values))
    if shutil.which("helm"):
        command = ["helm", "template", "demo", str(CHART), "--values", str(changed)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        texts = [done.stdout]
    else:
        helm = pytest.importorskip("helm_python", reason="needs helm, or the package helm-python-sdk")
        with helm.Chart.load(str(CHART)) as chart:
            texts = list(chart.render(values, name="demo").values())
    objects = [each for text in texts for each in yaml.safe_load_all(text) if each]
    return {each["kind"]: each for each in objects}


def test_the_chart_renders(tmp_path):
    found = render({}, tmp_path)
    assert set(found) == {"Deployment", "Service", "PodDisruptionBudget"}
    pod = found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    arguments = build_parser().parse_args(container["args"])
    assert arguments.directories == ["classifier=/models/classifier"] and arguments.drain_seconds == 30
    assert pod["spec"]["terminationGracePeriodSeconds"] > arguments.drain_seconds + 5  # preStop sleeps 5 seconds
    assert found["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] and pod["spec"]["securityContext"]["runAsNonRoot"]
    assert container["ports"][0]["containerPort"] == arguments.port


def test_options_of_the_chart(tmp_path):
    found = render(OTHER_VALUES, tmp_path)
    assert {"HorizontalPodAutoscaler", "ServiceMonitor"} <= set(found)
    deployment = found["Deployment"]["spec"]
    assert "replicas" not in deployment
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "keys", "key": "api-key"}
    arguments = build_parser().parse_args(container["args"])
    assert arguments.under_load == "degrade" and arguments.otlp_endpoint == "http://collector:4318"
    assert deployment["template"]["spec"]["nodeSelector"] == {"pool": "cpu"}
    grpc = next(each for each in found["Service"]["spec"]["ports"] if each["name"] == "grpc")
    assert grpc["port"] == 9000
    assert {"name": "grpc", "containerPort": arguments.grpc_port} in container["ports"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_systemd_unit_is_valid(tmp_path):
    unit = (DEPLOY / "systemd" / "itrex-sweet.service").read_text()
    copy = tmp_path / "itrex-sweet.service"
    copy.write_text(unit.replace("/opt/itrex-sweet/bin/itrex-sweet", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    stop = int(re.search(r"TimeoutStopSec=(\d+)", unit)[1])
    assert stop > build_parser().parse_args(commands()["systemd"]).drain_seconds
