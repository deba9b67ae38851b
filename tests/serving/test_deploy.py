"""The compose files, Prometheus and Grafana of deploy/ against the server; nothing is started."""

import argparse
import json
import re
import shlex
from typing import Any

import pytest
import yaml
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT
from tests.support.serving_parts import ModelAsTold, http, post, serving
from whisper_sae_steer.serving import command
from whisper_sae_steer.serving.config import ServeConfig

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "whisper.json").read_text(encoding="utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
WORDS = {"sum", "by", "rate", "histogram_quantile", "le", "endpoint", "status", "__rate_interval"}
"""of PromQL and its labels"""


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


CPU, CUDA, OBSERVED = (read(f"compose.{name}.yaml") for name in ("cpu", "cuda", "observability"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def config_of(service: dict[str, Any]) -> ServeConfig:
    """What the image's entry point makes of a service's command."""
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    program, subcommand, *arguments = [*json.loads(entrypoint), *service["command"]]
    assert (program, subcommand) == ("whisper-sae-steer", "serve")
    return command.config_of(parser.parse_args(arguments))


def targets(service: dict[str, Any]) -> set[int]:
    """Ports of the container that are published."""
    return {int(port.rpartition(":")[2]) for port in service["ports"]}


def test_services_start_the_server_on_the_ports_that_they_publish():
    config = config_of(CPU["services"]["whisper"])
    assert targets(CPU["services"]["whisper"]) == {config.port}
    assert config.wyoming is None
    home = CPU["services"]["home-assistant"]
    assert home["extends"] == "whisper"
    assert home["profiles"]  # or it would run beside the other
    config = config_of(home)
    assert config.wyoming == f"tcp://0.0.0.0:{targets(home).pop()}"
    assert config_of(CUDA["services"]["whisper"]).device == "cuda"


def test_builds_are_the_dockerfiles():
    declared = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    for compose, variant in ((CPU, "cpu"), (CUDA, "cuda")):
        build = compose["services"]["whisper"]["build"]
        assert build["args"]["VARIANT"] == variant
        assert set(build["args"]) <= declared
    assert (DEPLOY / CPU["services"]["whisper"]["build"]["context"]).resolve() == ROOT
    assert (DEPLOY / CUDA["services"]["whisper"]["extends"]["file"]).exists()
    (device,) = CUDA["services"]["whisper"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_variables_are_read_by_the_server():
    (key,) = CPU["services"]["whisper"]["environment"]
    assert key == command.KEY_VARIABLE
    variables = [line.partition("=")[0] for line in OBSERVED["services"]["whisper"]["environment"]]
    standard = {OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME}
    assert set(variables) == standard
    assert "otel" in re.findall(r'"\.\[([\w,]+)\]"', DOCKERFILE)[0].split(",")


def test_docker_waits_longer_than_the_server_does():
    grace = CPU["services"]["whisper"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > config_of(CPU["services"]["whisper"]).shutdown_timeout


@pytest.mark.parametrize("compose", [CPU, CUDA, OBSERVED])
def test_what_is_mounted_is_there(compose: dict[str, Any]):
    for service in compose["services"].values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]
    home = re.findall(r"^WORKDIR (.*)$", DOCKERFILE, re.MULTILINE)[-1]
    assert CPU["services"]["whisper"]["volumes"] == [f"models:{home}/.cache"]


def test_prometheus_asks_the_server_where_it_answers():
    (job,) = read("prometheus.yaml")["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in CPU["services"]
    assert int(port) == config_of(CPU["services"][host]).port
    with serving(ServeConfig(), ModelAsTold()) as server:
        assert http.get(server.url + job["metrics_path"]).status_code == 200


def test_grafana_finds_prometheus_and_the_dashboard():
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"].split("//")[1].split(":")[0] in OBSERVED["services"]
    used = {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert used == {source["uid"]}
    (provider,) = read("grafana/provisioning/dashboards/whisper.yaml")["providers"]
    mounts = [volume.split(":")[:2] for volume in OBSERVED["services"]["grafana"]["volumes"]]
    assert ["./grafana/dashboards", provider["options"]["path"]] in mounts


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """Names of all samples that /metrics gives after a request."""
    with serving(ServeConfig(), ModelAsTold()) as server:
        post(server)
        text = http.get(server.url + "/metrics").text
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_asks_for_what_is_measured(expression: str, shown: set[str]):
    bare = re.sub(r'"[^"]*"', "", expression)
    names = set(re.findall(r"[a-zA-Z_]\w*", bare)) - WORDS
    assert len(names) >= 1
    assert names <= shown
    assert all(bare.count(a) == bare.count(b) for a, b in ("()", "[]", "{}"))


def test_every_figure_that_the_docs_name_is_measured(shown: set[str]):
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(whisper_[a-z_]+)", text))
    assert named
    assert all(any(name.startswith(found) for name in shown) for found in named)


def test_commands_of_the_docs_name_files_and_options_that_there_are():
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    files = re.findall(r"-f (\S+\.yaml)", text + "".join(p.read_text() for p in DEPLOY.glob("compose.*")))
    assert files
    assert all((ROOT / file).exists() for file in files)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    for line in re.findall(r"whisper-sae-steer serve (.*)$", text, re.MULTILINE):
        command.config_of(parser.parse_args(shlex.split(line.rstrip("`"), comments=True)))
