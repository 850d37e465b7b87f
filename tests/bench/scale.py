"""A re-plan of 100,000 DER on 300 feeders: its time and the memory of the process. The last line is one JSON object."""

import json
import resource
import statistics
from pathlib import Path
from runpy import run_path

DERS, FEEDERS, CONGESTED = 100_000, 300, 100


def main() -> None:
    """Measure and print."""
    everyday = run_path(str(Path(__file__).with_name("plan.py")))["everyday"]
    cold_s, times_s, plan = everyday(DERS, FEEDERS, CONGESTED)
    print(f"first plan {cold_s:.2f} s; slowest re-plan {max(times_s):.2f} s; {plan.zones.zones} zones")
    rss_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"der": DERS, "replan_s": round(statistics.median(times_s), 2), "rss_gb": round(rss_gb, 2)}))


if __name__ == "__main__":
    main()
