"""Where the deployment files lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ("ingest", "preprocess", "train", "infer")
