"""Each service's image: small, without root, without secrets, and made of files and extras that exist."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .dockerfile import Dockerfile, read_dockerfile
from .paths import ROOT, SERVICES

TORCHLESS = ("ingest", "preprocess")


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dockerfile(service: str) -> Dockerfile:
    return read_dockerfile(ROOT / "services" / service / "Dockerfile")


def test_builds_in_one_stage_and_runs_in_another(dockerfile: Dockerfile) -> None:
    assert len(dockerfile.stages) >= 2
    assert not dockerfile.runtime.all("ADD")
    assert not [run for run in dockerfile.runtime.all("RUN") if "pip" in run.text or "apt" in run.text]


def test_base_images_are_versioned(dockerfile: Dockerfile) -> None:
    for image in dockerfile.arguments.values():
        assert re.search(r":[\w.-]*\d+\.\d+", image), image
    for stage in dockerfile.stages:
        assert re.fullmatch(r"\$\{\w+_IMAGE\}", stage.image), stage.image


def test_runs_as_a_numeric_user_without_root(dockerfile: Dockerfile) -> None:
    users = dockerfile.runtime.all("USER")

    assert [user.text for user in users] == ["65532:65532"]
    assert dockerfile.runtime.instructions.index(users[0]) > max(
        index for index, it in enumerate(dockerfile.runtime.instructions) if it.word in ("COPY", "RUN")
    )


def test_writes_nothing_beside_its_data_and_tmp(dockerfile: Dockerfile) -> None:
    environment = " ".join(it.text for it in dockerfile.runtime.all("ENV")).split()

    assert {"PYTHONDONTWRITEBYTECODE=1", "HOME=/tmp", "AF_MODELS__CACHE_DIR=/tmp/cache"} <= set(environment)
    assert "PYTHONPATH=/app" in environment
    assert "AF_DATA_DIR=/var/lib/audiofoundation" in environment


def test_holds_no_secret(dockerfile: Dockerfile) -> None:
    for stage in dockerfile.stages:
        for instruction in stage.all("ENV") + stage.all("ARG"):
            assert not re.search(r"(?i)(password|secret|token|api_?key)", instruction.text), instruction


def test_copies_only_what_exists_and_the_build_context_lets_in(dockerfile: Dockerfile) -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for stage in dockerfile.stages:
        for copy in (it for it in stage.all("COPY") if it.flag("from") is None):
            for source in copy.words[:-1]:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] in let_in, source


def test_copies_only_from_stages_that_exist(dockerfile: Dockerfile) -> None:
    names = {stage.name for stage in dockerfile.stages}
    sources = {copy.flag("from") for stage in dockerfile.stages for copy in stage.all("COPY")}

    assert sources - {None} <= names


def test_installs_its_own_extra(service: str, dockerfile: Dockerfile) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installs = " ".join(run.text for stage in dockerfile.stages for run in stage.all("RUN"))

    assert re.findall(r'"\.\[(\w+)\]"', installs) == [service]
    assert service in extras


def test_torch_is_installed_only_where_a_model_runs(service: str) -> None:
    assert ("torch" in _closure(service)) == (service not in TORCHLESS)


def test_entry_points_import_from_the_copied_files_alone(service: str, dockerfile: Dockerfile, tmp_path: Path) -> None:
    for copy in (it for it in dockerfile.runtime.all("COPY") if it.flag("from") is None):
        *sources, target = copy.words
        for source in sources:
            _copy(ROOT / source, tmp_path / target, is_into=target.endswith("/"))
    modules = {"ingest": "worker", "preprocess": "worker", "train": "supervisor", "infer": "main"}
    names = [f"services.{service}.main", f"services.{service}.{modules[service]}"]
    blocked = ["torch", "torchaudio"] if service in TORCHLESS else ["torchaudio"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {', '.join(names)}"

    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def _copy(source: Path, target: Path, *, is_into: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_into:
        target.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _closure(extra: str) -> set[str]:
    """Every distribution that `audiofoundation[extra]` brings, as far as it is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    todo = [Requirement(text) for text in [*project["dependencies"], *optional[extra]]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        if key[0] == "audiofoundation":
            texts = [text for name in requirement.extras for text in optional[name]]
        else:
            texts = _requires(requirement.name)
        todo += [found for found in map(Requirement, texts) if _applies(found, requirement.extras)]
    return {name for name, _ in seen}


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
