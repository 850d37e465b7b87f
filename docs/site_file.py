"""Prints docs/site-file.md: the guide to the files that describe a site, with the reference taken from the code."""

from derms.service.config import describe

GUIDE = """\
# Site file and fleet file

This page is printed by `make docs`; the reference below comes from the tables in the code that read the files.

A site is two files that people write: a site file (TOML), and the fleet file (CSV) that it names. Powers in them are
kW and kVA, energies kWh, times s unless a key's name says otherwise. `derms check -c site.toml` reads both, the
feeder's manifest and the history, and reports every mistake at once, each with file, line or row, and what would be
right; `derms run` does not start on a site that has one.

The least that a site file holds:

```toml
[site]
name = "Example"
feeder = "ieee123"
latitude = 34.05
longitude = -118.24
timezone = "America/Los_Angeles"

[fleet]
file = "fleet.csv"
```

A fleet file with one PV inverter, one battery and the meter of the feeder's head. PV and batteries carry the ids that
the feeder's manifest knows, and stand at the same bus there:

```csv
id,kind,driver,host,port,unit,bus,p_rated_kw,s_rated_kva,energy_kwh,soc_min_pct,soc_max_pct,serial
pv01,pv,sunspec,192.0.2.11,502,1,site_pv01,30,33,,,,
bat01,battery,sunspec,192.0.2.12,502,1,site_bat01,25,27.5,100,10,95,
head,head-meter,sunspec,192.0.2.13,502,1,150,,,,,,
```

Without `mode = "auto"` in `[site]` the service only observes: it polls, estimates and plans, and the transport of every
device refuses to write. With it, the service dispatches the plan; see [architecture.md](architecture.md) for what
happens when it stops.

`[scada] history` names a CSV with the columns `time_utc, net_load_kw`: ends of intervals and means over them. Without
a full day of it the forecast starts from a standard weekday scaled to the feeder's peak.

"""


if __name__ == "__main__":
    print(GUIDE + describe(), end="")
