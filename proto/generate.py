"""Write `audiofoundation/api/v1` from the .proto files beside this script. `make proto` runs it."""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]  # it has no types

_HERE = Path(__file__).resolve().parent
_TARGET = _HERE.parent / "audiofoundation" / "api" / "v1"
_PACKAGE = "audiofoundation.v1"


def main() -> int:
    """Generate, then point the modules' imports at where they live."""
    sources = sorted(str(path.relative_to(_HERE)) for path in _HERE.glob("audiofoundation/v1/*.proto"))
    google = str(files("grpc_tools") / "_proto")
    staging = _TARGET.parent
    flags = [f"--{kind}_out={staging}" for kind in ("python", "grpc_python")]
    if code := protoc.main(["protoc", f"-I{_HERE}", f"-I{google}", *flags, *sources]):
        return int(code)
    made = staging / "audiofoundation" / "v1"
    _TARGET.mkdir(exist_ok=True)
    for module in sorted(made.iterdir()):
        text = module.read_text().replace(f"from {_PACKAGE} import", "from audiofoundation.api.v1 import")
        (_TARGET / module.name).write_text(text)
        module.unlink()
    made.rmdir()
    made.parent.rmdir()
    (_TARGET / "__init__.py").write_text('"""Generated from proto/audiofoundation/v1 by `make proto`; not edited."""\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
