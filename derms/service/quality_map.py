"""The quality map of the utility's system: a CSV with the source's own words and bits, and ours beside them."""

import re
from pathlib import Path

from derms.domain.quality import Quality
from derms.errors import ConfigError
from derms.scada.intake import DEFAULT_WORDS, QualityMap
from derms.service.files import Report, did_you_mean, read_csv

HEADER = ["word", "quality"]
QUALITIES = {
    quality.name.lower(): quality for quality in (Quality.GOOD, Quality.SUSPECT, Quality.STALE, Quality.MISSING)
}
_BIT = re.compile(r"bit (\d{1,2})")


def read_qualities(path: Path) -> QualityMap:
    """Words, and bits as `bit 3`, with the usual words beside them; raises ConfigError with every mistake."""
    table, report = read_csv(path), Report(str(path))
    if table.header != HEADER:
        raise report.error("row 1", "the header is " + ", ".join(table.header), "the columns are word, quality")
    found: dict[str, Quality] = {}
    for row, cells in table.rows:
        if len(cells) != len(HEADER):
            report.add(f"row {row}", f"{len(cells)} cells under a header of 2", "give a word and a quality")
            continue
        word, name = (cell.lower() for cell in cells)
        if name not in QUALITIES:
            right = did_you_mean(name, QUALITIES, "it is one of " + ", ".join(QUALITIES))
            report.add(f"row {row}, column quality", f"unknown quality '{cells[1]}'", right)
        elif word in found:
            report.add(f"row {row}, column word", f"'{cells[0]}' is there twice", "keep one of them")
        else:
            found[word] = QUALITIES[name]
    if report.problems:
        raise ConfigError(report.problems)
    bits = {int(match[1]): quality for word, quality in found.items() if (match := _BIT.fullmatch(word))}
    return QualityMap({**DEFAULT_WORDS, **{w: q for w, q in found.items() if not _BIT.fullmatch(w)}}, bits)
