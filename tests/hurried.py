"""Times of a site file with which a test of real processes need not wait for long; no trim moves values in between."""

INTERVAL_S, REVERSION_S = 10.0, 30.0
HURRIED = f"""
[field]
poll_s = 2
timeout_s = 1
stale_after_s = 8
[dispatch]
interval_s = {INTERVAL_S:g}
group_s = 1
settle_s = 5
reversion_s = {REVERSION_S:g}
reversion_jitter_s = 0
validity_s = 60
trim_frac = 0
[plan]
every_s = 10
[estimate]
every_s = 5
[web]
port = 0
"""
