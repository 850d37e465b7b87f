"""Requests of this kind, and all that travels with them."""

from collections.abc import Mapping

TYPES: Mapping[str, tuple[str, ...]] = {}
