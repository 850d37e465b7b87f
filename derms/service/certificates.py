"""The certificates that commissioning has left in a folder, by serial number."""

from collections.abc import Mapping
from pathlib import Path

from derms.domain.certificate import Certificate
from derms.errors import ConfigError, Problem
from derms.service.files import read_text


def read_certificates(folder: Path) -> Mapping[str, Certificate]:
    """All certificates of a folder by the serial number in them; none when there is no folder.

    Raises ConfigError with every file that is none.
    """
    found: dict[str, Certificate] = {}
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.json")):
        try:
            certificate = Certificate.from_json(read_text(path))
        except ConfigError as error:
            problems += error.problems
        except ValueError as error:
            problems.append(Problem(str(path), "file", f"is not a certificate ({error})", "test the device again"))
        else:
            found[certificate.serial] = certificate
    if problems:
        raise ConfigError(problems)
    return found
