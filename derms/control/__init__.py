"""Pure and safety-critical: guards, and the one control cycle."""
