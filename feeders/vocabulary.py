"""The words of OpenDSS text: commands, options and the properties of classes, each in OpenDSS's own order.

The order matters: any word may be cut short, and the first in order that begins so is meant; values without a name take
the properties one after the other. Source: what the engine itself lists (DSS C-API 0.14.5, OpenDSS 9.8).
"""

from collections.abc import Mapping

_COMMANDS = """
    new edit more m ~ select save show solve enable disable plot reset compile set dump open close // redirect
    help quit ? next panel sample clear about calcvoltagebases setkvbase buildy get init export fileedit
    voltages currents powers seqvoltages seqcurrents seqpowers losses phaselosses cktlosses allocateloads
    formedit totals capacity classes userclasses zsc zsc10 zscrefresh ysc puvoltages varvalues varnames
    buscoords makebuslist makeposseq reduce interpolate alignfile top rotate vdiff summary distribute di_plot
    comparecases yearlycurves cd visualize closedi doscmd estimate reconductor _initsnap _solvenocontrol
    _samplecontrols _docontrolactions _showcontrolqueue _solvedirect _solvepflow addbusmarker uuids
    setloadandgenkv cvrtloadshapes nodediff rephase setbusxy updatestorage obfuscate latlongcoords batchedit
    pstcalc variable reprocessbuses clearbusmarkers relcalc var cleanup finishtimestep nodelist connect
    disconnect remove calcincmatrix calcincmatrix_o refine_buslevels calclaplacian exportoverloads
    exportvviolations zsc012 allpceatbus allpdeatbus totalpowers giscoords clearall comhelp newactor wait
    solveall abort clone
"""

_OPTIONS = """
    type element hour sec year frequency stepsize mode random number time class object circuit editor
    tolerance maxiterations h loadmodel loadmult normvminpu normvmaxpu emergvminpu emergvmaxpu %mean %stddev
    ldcurve %growth genkw genpf capkvar addtype allowduplicates zonelock ueweight lossweight ueregs lossregs
    voltagebases algorithm trapezoidal autobuslist controlmode tracecontrol genmult defaultdaily defaultyearly
    allocationfactors cktmodel pricesignal pricecurve terminal basefrequency harmonics maxcontroliter bus
    datapath keeplist reduceoption demandinterval %normal diverbose casename markercode nodewidth log recorder
    overloadreport voltexceptionreport cfactors showexport numallociterations defaultbasefrequency
    markswitches switchmarkercode daisysize marktransformers transmarkercode transmarkersize loadshapeclass
    earthmodel querylog markcapacitors markregulators markpvsystems markstorage capmarkercode regmarkercode
    pvmarkercode storemarkercode capmarkersize regmarkersize pvmarkersize storemarkersize neglectloady
    markfuses fusemarkercode fusemarkersize markreclosers reclosermarkercode reclosermarkersize registryupdate
    markrelays relaymarkercode relaymarkersize processtime totaltime steptime sampleenergymeters miniterations
    dssvisualizationtool keepload zmag seasonrating seasonsignal linetypes eventlogdefault longlinecorrection
    showreports numcpus numcores numactors activeactor cpu actorprogress parallel concatenatereports numanodes
"""

_PROPERTIES = {
    "line": """
        bus1 bus2 linecode length phases r1 x1 r0 x0 c1 c0 rmatrix xmatrix cmatrix switch rg xg rho geometry
        units spacing wires earthmodel cncables tscables b1 b0 seasons ratings linetype normamps emergamps
        faultrate pctperm repair basefreq enabled like
    """,
    "linecode": """
        nphases r1 x1 r0 x0 c1 c0 units rmatrix xmatrix cmatrix basefreq normamps emergamps faultrate pctperm
        repair kron rg xg rho neutral b1 b0 seasons ratings linetype like
    """,
    "linegeometry": """
        nconds nphases cond wire x h units normamps emergamps reduce spacing wires cncable tscable cncables
        tscables seasons ratings linetype like
    """,
    "linespacing": """
        nconds nphases x h units like
    """,
    "transformer": """
        phases windings wdg bus conn kv kva tap %r rneut xneut buses conns kvs kvas taps xhl xht xlt xscarray
        thermal n m flrise hsrise %loadloss %noloadloss normhkva emerghkva sub maxtap mintap numtaps subname
        %imag ppm_antifloat %rs bank xfmrcode xrconst x12 x13 x23 leadlag wdgcurrents core rdcohms seasons
        ratings normamps emergamps faultrate pctperm repair basefreq enabled like
    """,
    "autotrans": """
        phases windings wdg bus conn kv kva tap %r rdcohms core buses conns kvs kvas taps xhx xht xxt xscarray
        thermal n m flrise hsrise %loadloss %noloadloss normhkva emerghkva sub maxtap mintap numtaps subname
        %imag ppm_antifloat %rs bank xrconst leadlag wdgcurrents normamps emergamps faultrate pctperm repair
        basefreq enabled like
    """,
    "xfmrcode": """
        phases windings wdg conn kv kva tap %r rneut xneut conns kvs kvas taps xhl xht xlt xscarray thermal n
        m flrise hsrise %loadloss %noloadloss normhkva emerghkva maxtap mintap numtaps %imag ppm_antifloat %rs
        x12 x13 x23 rdcohms seasons ratings like
    """,
    "reactor": """
        bus1 bus2 phases kvar kv conn rmatrix xmatrix parallel r x rp z1 z2 z0 z rcurve lcurve lmh normamps
        emergamps faultrate pctperm repair basefreq enabled like
    """,
    "capacitor": """
        bus1 bus2 phases kvar kv conn cmatrix cuf r xl harm numsteps states normamps emergamps faultrate
        pctperm repair basefreq enabled like
    """,
    "vsource": """
        bus1 basekv pu angle frequency phases mvasc3 mvasc1 x1r1 x0r0 isc3 isc1 r1 x1 r0 x0 scantype sequence
        bus2 z1 z0 z2 puz1 puz0 puz2 basemva yearly daily duty model puzideal spectrum basefreq enabled like
    """,
    "isource": """
        bus1 amps angle frequency phases scantype sequence yearly daily duty bus2 spectrum basefreq enabled
        like
    """,
    "load": """
        phases bus1 kv kw pf model yearly daily duty growth conn kvar rneut xneut status class vminpu vmaxpu
        vminnorm vminemerg xfkva allocationfactor kva %mean %stddev cvrwatts cvrvars kwh kwhdays cfactor
        cvrcurve numcust zipv %seriesrl relweight vlowpu puxharm xrharm spectrum basefreq enabled like
    """,
    "generator": """
        phases bus1 kv kw pf kvar model vminpu vmaxpu yearly daily duty dispmode dispvalue conn status class
        vpu maxkvar minkvar pvfactor forceon kva mva xd xdp xdpp h d usermodel userdata shaftmodel shaftdata
        dutystart debugtrace balanced xrdp usefuel fuelkwh %fuel %reserve refuel dynamiceq dynout spectrum
        basefreq enabled like
    """,
    "pvsystem": """
        phases bus1 kv irradiance pmpp %pmpp temperature pf conn kvar kva %cutin %cutout effcurve p-tcurve %r
        %x model vminpu vmaxpu balanced limitcurrent yearly daily duty tyearly tdaily tduty class usermodel
        userdata debugtrace varfollowinverter dutystart wattpriority pfpriority %pminnovars %pminkvarmax
        kvarmax kvarmaxabs kvdc kp pitol safevoltage safemode dynamiceq dynout controlmode amplimit
        amplimitgain spectrum basefreq enabled like
    """,
    "storage": """
        phases bus1 kv conn kw kvar pf kva %cutin %cutout effcurve varfollowinverter kvarmax kvarmaxabs
        wattpriority pfpriority %pminnovars %pminkvarmax kwrated %kwrated kwhrated kwhstored %stored %reserve
        state %discharge %charge %effcharge %effdischarge %idlingkw %idlingkvar %r %x model vminpu vmaxpu
        balanced limitcurrent yearly daily duty dispmode dischargetrigger chargetrigger timechargetrig class
        dynadll dynadata usermodel userdata debugtrace kvdc kp pitol safevoltage safemode dynamiceq dynout
        controlmode amplimit amplimitgain spectrum basefreq enabled like
    """,
    "regcontrol": """
        transformer winding vreg band ptratio ctprim r x bus delay reversible revvreg revband revr revx
        tapdelay debugtrace maxtapchange inversetime tapwinding vlimit ptphase revthreshold revdelay
        revneutral eventlog remoteptratio tapnum reset ldc_z rev_z cogen basefreq enabled like
    """,
    "capcontrol": """
        element terminal capacitor type ptratio ctratio onsetting offsetting delay voltoverride vmax vmin
        delayoff deadtime ctphase ptphase vbus eventlog usermodel userdata pctminkvar reset controlsignal
        basefreq enabled like
    """,
    "swtcontrol": """
        switchedobj switchedterm action lock delay normal state reset basefreq enabled like
    """,
}

COMMANDS = tuple(_COMMANDS.split())
OPTIONS = tuple(_OPTIONS.split())
PROPERTIES: Mapping[str, tuple[str, ...]] = {kind: tuple(words.split()) for kind, words in _PROPERTIES.items()}
"""Of the classes that a feeder is made of. `like` copies another element."""

OF_A_CIRCUIT = frozenset(
    (
        *("new", "edit", "more", "m", "~", "batchedit", "select", "enable", "disable", "open", "close"),
        *("clear", "clearall", "redirect", "compile", "set", "get", "?", "solve", "init", "reset"),
        *("makebuslist", "reprocessbuses", "calcvoltagebases", "setkvbase", "setloadandgenkv", "buildy"),
        *("buscoords", "latlongcoords", "giscoords", "setbusxy", "addbusmarker", "clearbusmarkers"),
        *("allocateloads", "sample", "cvrtloadshapes", "totals", "losses", "summary"),
    )
)
"""Commands that may stand in a circuit's files: they make the circuit, or say something without writing a file."""

FOREIGN_OPTIONS = frozenset(
    (
        *("editor", "datapath", "recorder", "querylog", "log", "registryupdate", "allowduplicates"),
        *("demandinterval", "diverbose", "overloadreport", "voltexceptionreport", "dssvisualizationtool"),
        *("showexport", "showreports", "numcpus", "numcores", "numactors", "activeactor", "parallel"),
    )
)
"""Options of `set` that name programs and places, write files, or change what the control room relies on."""

LIBRARY_PROPERTIES = ("usermodel", "shaftmodel", "dynadll")
"""They load a library of machine code into the engine."""

FILE_PROPERTIES = ("csvfile", "pqcsvfile", "sngfile", "dblfile", "file")
"""They name a file with numbers, as properties or inside an array."""


def whole(word: str, known: tuple[str, ...]) -> str:
    """The whole of a word that may be cut short; the word itself, lower case, when none begins so."""
    lower = word.lower()
    if not lower or lower in known:
        return lower
    return next((name for name in known if name.startswith(lower)), lower)


def property_name(kind: str, word: str) -> str:
    """Full name of a property of a class; of a class not listed only the buses are known by shortened words."""
    return whole(word, PROPERTIES.get(kind, ("bus1", "bus2"))) if word else ""
