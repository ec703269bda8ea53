"""The Grafana dashboard asks only for metrics, labels and states that the services have."""

import json
import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from audiofoundation.preprocessing.states import ShardState
from audiofoundation.telemetry import metrics  # noqa: F401  (registers what workers count)
from audiofoundation.transport.catalog_metrics import CatalogMetrics
from tests.contract.deployment.paths import ROOT
from tests.unit.transport.serving import create_sample_app

DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
PROMQL = {"max", "min", "sum", "by", "rate", "histogram_quantile", "le", "instance"}


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def words_of(expression: str) -> Iterator[str]:
    plain = re.sub(r'"[^"]*"|\[[^]]*\]', "", expression)
    yield from re.findall(r"[a-z_]{2,}", plain)


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Names of metrics, as they are scraped, and of their labels."""
    names = {name for family in REGISTRY.collect() for name in (family.name, *(s.name for s in family.samples))}
    counters = {f"{family.name}{end}" for family in REGISTRY.collect() for end in ("_total", "_bucket")}
    labels = {
        label for collector in set(REGISTRY._collector_to_names) for label in getattr(collector, "_labelnames", ())
    }
    return names | counters | labels


def test_every_expression_asks_for_what_is_there(known: set[str], sqlite_engine: Engine) -> None:
    app = create_sample_app()
    app.state.catalog_metrics = CatalogMetrics(sqlite_engine)
    text = TestClient(app).get("/metrics").text
    gauges = {family.name for family in text_string_to_metric_families(text)}
    of_catalog = {"kind", "state", "collection", "error_class"}

    unknown = {word for expression in expressions() for word in words_of(expression)}
    unknown -= known | gauges | of_catalog | PROMQL

    assert unknown == set()
    assert len(expressions()) > 15


def test_states_in_expressions_are_states() -> None:
    asked = {state for expression in expressions() for state in re.findall(r'state="([^"]*)"', expression)}

    assert asked <= {state.value for state in ShardState}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (place["x"] + dx, place["y"] + dy)
        for place in (panel["gridPos"] for panel in panels)
        for dx in range(place["w"])
        for dy in range(place["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
