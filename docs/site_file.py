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

## Connections

Devices that share a connection to the grid name it in the column `connection`, and `connections` in `[fleet]` names a
CSV with a row for each: what may go out of its point of common coupling and into it, and what else draws behind it.
The planner keeps to that, and the gateway's guard keeps it whatever is planned or wanted, with the least other load
for export and the greatest for import.

```toml
[fleet]
file = "fleet.csv"
connections = "connections.csv"
```

```csv
id,export_max_kw,import_max_kw,load_max_kw,load_min_kw
farm,30,60,20,5
```

```csv
id,kind,driver,host,port,bus,p_rated_kw,energy_kwh,connection,inverter,backup_pct,charge_from
pv01,pv,sunspec,192.0.2.11,502,site_pv01,30,,farm,hybrid,,
bat01,battery,sunspec,192.0.2.12,502,site_bat01,25,100,farm,hybrid,40,solar
head,head-meter,sunspec,192.0.2.13,502,150,,,,,,
```

## Observing and dispatching

Without `mode = "auto"` in `[site]` the service only observes: it polls, estimates and plans, and the transport of every
device refuses to write. With it, the service dispatches the plan; see [architecture.md](architecture.md) for what
happens when it stops.

`[scada] history` names a CSV with the columns `time_utc, net_load_kw`: ends of intervals and means over them. Without
a full day of it the forecast starts from a standard weekday scaled to the feeder's peak.

`[forecast] prices` names a CSV with the columns `from_utc, usd_per_mwh`: what energy costs at the system's margin from
that time to the next row's, an hour from the last one. It may be negative, may come later, and change. Plans weigh it
against the peak at `[plan] peak_price`; a step without a price has the mean of the others.

## The utility's own system

Without a word in `[scada]` the system's net load is that of a meter of the fleet. With `source`, it comes with feeder
heads, switches and taps from the utility's SCADA or EMS, point by point as the point map says:

```toml
[scada]
source = "file"
points = "points.csv"
path = "/srv/ems/now.csv"
publish = "/srv/ems/plan.json"
```

```csv
id,kind,element,phase,where,unit,normal
load,net_load,system,,LOAD,MW,
sw2,switch,line.sw2,,SW2,single,closed
sw7,switch,line.sw7,,SW7,double,open
reg1,tap,regcontrol.creg1a,,REG1,,
```

- **file**: CSV or JSON, looked at every `every_s` and read when it has changed. A CSV has a row per point under
  `point,value` with `quality` and `time` where there are, or a column per point with `time` and `<column>.quality`. It
  ends with a line end. A value without a time has that of the file.
- **rest**: one JSON document; `where` is a JSON pointer to a number, a text, or an object with `value`, `quality` and
  `time`. Certificates are checked, redirects are not followed, entity tags are used. The token is read from the
  environment variable that `token_variable` names.
- **modbus**: `where` is `unit/table/address/type`, such as `1/holding/100/float32`, and a register of quality bits
  behind it, such as `1/input/100/int16/200`. Addresses count from 0, high registers come first.

Times are ISO 8601, UTC unless they say otherwise, or seconds since 1970, and are those of the value, not of its last
change. A value that cannot be read, lies outside of what the feeder can have, or is ahead of our clock never replaces
a good one: that one is kept until it is `stale_after_s` old. `qualities` adds the source's own words, and bits as
`bit 3`, to the usual ones (good, suspect, stale, missing and what means the same); a word that nobody knows is suspect.

A switch that is not known, or not as the model has it, makes the feeder's state suspect and stands in the reason of
every plan; planning goes on.

`publish` tells the utility the plan: UTC times, net load and battery power per step, source, mode and validity. A file
is replaced as a whole; REST gets one document by `publish_method`; over Modbus it is a block of holding registers (see
`drivers/scada.py`), whose two counters are equal when it is whole, and which is not written in observe mode. A plan
that nobody replaced is published again as expired, and as withdrawn when the service ends.

"""


if __name__ == "__main__":
    print(GUIDE + describe(), end="")
