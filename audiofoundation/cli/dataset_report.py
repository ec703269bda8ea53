"""`audiofoundation dataset report`: a page about a dataset."""

from pathlib import Path
from typing import Annotated

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption, path_to
from audiofoundation.cli.output import JsonOption, print_json, print_line

HELP = """Write one HTML file about a platform's dataset: lengths, loudness, spectra, quality, pictures of segments.

Example:

  audiofoundation dataset report ds_0192f3 -o report.html
"""


def report(
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    with PlatformClient(url, data_dir=data_dir) as client:
        client.download(path_to("datasets", dataset, "report"), out)
    if is_json:
        print_json({"dataset": dataset, "out": str(out)})
    else:
        print_line(f"{out}: open it in a browser")
