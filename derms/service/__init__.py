"""The imperative shell: configuration, clocks, cadence, and what is wired to what."""
