"""`python -m drivers.profiles [FILE ...]`: checks profiles, and tells what each makes of its device."""

import sys
from collections.abc import Sequence
from pathlib import Path

from derms.errors import ConfigError
from drivers.profiles.layout import read_plan
from drivers.profiles.loader import FOLDER, load_profile, load_profiles
from drivers.profiles.profile import Profile, Speaks


def summary(profile: Profile) -> str:
    """One line: kinds, poll, commands, and how these end when nobody speaks to the device."""
    kinds = ", ".join(sorted(profile.kinds))
    poll = "discovered"
    if profile.speaks is Speaks.REGISTERS:
        layout, spans = read_plan(profile)
        poll = f"{len(spans)} requests, {layout.registers} registers"
    takes = ", ".join(sorted(profile.controls)) or ("nothing" if profile.speaks is Speaks.REGISTERS else "by SunSpec")
    ends = f", class {profile.reversion_class}" if profile.reversion_class else ""
    return f"{profile.id}: {kinds}; poll: {poll}; takes: {takes}{ends}; unit {profile.unit}; {profile.level}"


def main(arguments: Sequence[str]) -> int:
    """Check the files named, or all packaged profiles; 2 when one has mistakes, which are all told."""
    try:
        named = [load_profile(Path(name)) for name in arguments]
        profiles = named or list(load_profiles(FOLDER).values())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(summary(profile) for profile in profiles))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
