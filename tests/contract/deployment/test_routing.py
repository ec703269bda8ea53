"""The two tables that lead from one address to four services know every route of theirs."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI
from pydantic import SecretStr

from audiofoundation.settings import CatalogSettings, Settings

from .paths import ROOT, SERVICES


def caddy_table() -> list[tuple[str, str]]:
    """(path pattern, service) pairs; the last handler takes the rest."""
    text = (ROOT / "deploy" / "Caddyfile").read_text()
    table = []
    for name, patterns in re.findall(r"@(\w+) path (.+)", text):
        table += [(pattern, name) for pattern in patterns.split()]
    (rest,) = re.findall(r"\thandle \{\n\t\treverse_proxy (\w+):8000", text)
    return [*table, ("/*", rest)]


def ingress_table() -> list[tuple[str, str]]:
    """(path pattern, service) pairs, the longest prefix first as an ingress chooses."""
    ingress = next(yaml.safe_load_all((ROOT / "k8s/components/ingress/ingress.yaml").read_text()))
    paths = ingress["spec"]["rules"][0]["http"]["paths"]
    table = []
    for path in sorted(paths, key=lambda it: -len(it["path"])):
        service = path["backend"]["service"]["name"]
        table += [(path["path"], service), (f"{path['path'].rstrip('/')}/*", service)]
    return table


def lookup(table: list[tuple[str, str]], path: str) -> str | None:
    for pattern, service in table:
        if path == pattern or (pattern.endswith("/*") and path.startswith(pattern[:-1])):
            return service
    return None


def own_paths(app: FastAPI) -> set[str]:
    """The paths under /v1 that an application documents, with a name where a parameter stands."""
    return {re.sub(r"[{}]", "", path) for path in app.openapi()["paths"] if path.startswith("/v1/")}


@pytest.mark.parametrize("table", [caddy_table, ingress_table])
@pytest.mark.parametrize("service", SERVICES)
def test_every_route_leads_to_its_service(service: str, table: object, tmp_path: Path) -> None:
    catalog = CatalogSettings(url=SecretStr(f"sqlite:///{tmp_path}/catalog.db"))
    settings = Settings(data_dir=tmp_path, catalog=catalog)
    app = importlib.import_module(f"services.{service}.main").create_app(settings)
    assert callable(table)
    paths = own_paths(app)

    assert paths
    for path in sorted(paths):
        assert lookup(table(), path) == service, path


def test_an_unknown_prefix_would_be_noticed() -> None:
    assert lookup([("/v1/runs", "train")], "/v1/runsaway") is None
    assert lookup(caddy_table(), "/v1/runs/abc/events") == "train"


def test_the_caddyfile_proxies_to_the_service_it_names() -> None:
    text = (ROOT / "deploy" / "Caddyfile").read_text()
    handled = re.findall(r"handle @(\w+) \{\n\t\treverse_proxy (\w+):8000", text)

    assert handled == [(name, name) for name in ("ingest", "preprocess", "train")]


def test_nothing_in_the_caddyfile_stands_beside_the_handlers() -> None:
    """Caddy sorts directives: a `respond` beside a catch-all `handle` would never be reached."""
    site = (ROOT / "deploy" / "Caddyfile").read_text().partition(":8000 {\n")[2]
    words = re.findall(r"^\t([@\w]+)", site, re.MULTILINE)

    assert set(words) - {"handle"} == {"@ingest", "@preprocess", "@train"}
