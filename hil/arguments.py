"""Numbers on the command line, with their bounds in the message when they are wrong."""

import argparse
from collections.abc import Callable


def number(low: float, high: float) -> Callable[[str], float]:
    """A type for argparse: a number from `low` to `high`, and not NaN."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}': give a number from {low:g} to {high:g}")
        return value

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    """A type for argparse: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() else low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}': give a whole number from {low} to {high}")
        return value

    return parse
