"""Makes a territory: `python -m feeders.territory SPEC --out DIR [--json]`."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from derms.errors import ConfigError
from feeders.territory.generate import write
from feeders.territory.spec import TEMPLATE, read


def main() -> int:
    """Make it; 0, or 2 when the spec or the folder cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m feeders.territory", description=__doc__)
    parser.add_argument("spec", type=Path, help=f"what to make; a commented one: {TEMPLATE.name} beside this program")
    parser.add_argument("--out", type=Path, required=True, help="new folder, for one folder per feeder")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    given = parser.parse_args()
    try:
        spec = read(given.spec)

        def progress(done: int) -> None:
            print(f"\r{done}/{spec.feeders} feeders", end="", file=sys.stderr, flush=True)

        made = asdict(write(spec, given.out, progress))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(file=sys.stderr)
    print(json.dumps(made) if given.json else "\n".join(f"{key:10} {value}" for key, value in made.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
