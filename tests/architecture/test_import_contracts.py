from importlinter import api
from importlinter.application.use_cases import lint_imports

from tests.architecture.source import ROOT


def test_the_import_contracts_hold() -> None:
    assert api is not None
    assert lint_imports(config_filename=str(ROOT / ".importlinter"), cache_dir=None)
