"""The shape of a benchmark's answer, and how a case is timed."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    case: str
    system: str
    value: float
    unit: str


@dataclass(slots=True)
class Report:
    """Rows of one run and ours-to-peer ratios (above 1: ours is better)."""

    benchmark: str
    conditions: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    ratios: list[dict[str, str | float]] = field(default_factory=list)

    def add(self, case: str, values: dict[str, float], *, ours: str, unit: str) -> None:
        """Record one case; in every unit used here more is better."""
        self.rows += [Row(case, system, round(value, 3), unit) for system, value in values.items()]
        for peer, value in values.items():
            if not peer.startswith("ours"):
                self.ratios.append({"case": case, "peer": peer, "ratio": round(values[ours] / value, 3)})

    def show(self, *, is_json: bool) -> None:
        """Print the report as JSON or as a table."""
        if is_json:
            print(json.dumps(asdict(self)))
            return
        print(f"{self.benchmark}: " + ", ".join(f"{key} {value}" for key, value in self.conditions.items()))
        for row in self.rows:
            print(f"  {row.case:28} {row.system:28} {row.value:12.2f} {row.unit}")
        for ratio in self.ratios:
            print(f"  {ratio['case']:28} against {ratio['peer']:20} {ratio['ratio']:8.2f}x")


def median_seconds(systems: dict[str, Callable[[], object]], *, repeats: int = 5) -> dict[str, float]:
    """Return each system's median seconds, measured in turns (A B A B …) after one warm-up each."""
    for run in systems.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, run in systems.items():
            started = time.process_time()
            run()
            times[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in times.items()}
