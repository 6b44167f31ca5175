"""What was measured, as markdown."""

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
from pathlib import Path

import cases
import servers

BEGIN = "<!-- measured: benches/compare --write replaces what is between this line and the next mark -->"
END = "<!-- end of what was measured -->"


def machine():
    """What the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 2**30),
        "kernel": platform.release(),
        "rust": _output(["rustc", "--version"]),
        "commit": _output(["git", "-C", str(servers.ROOT), "rev-parse", "--short", "HEAD"]),
        "file_system": _file_system(servers.target(servers.ROOT)),
        "versions": _versions(),
    }


def _output(argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _file_system(folder):
    """Where `servers.Running` puts the files of stores; before the first build the folder is not there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return _output(["df", "--output=fstype", str(there)]).split()[-1]


def _versions():
    lock = (servers.OXIDE / "Cargo.lock").read_text()
    crate = lambda name: re.search(rf'name = "{name}"\nversion = "(.*)"', lock).group(1)
    node = json.loads((servers.NODE / "package.json").read_text())["dependencies"]["socket.io"]
    python = (servers.PYTHON / "requirements.txt").read_text()
    pinned = lambda name: re.search(rf"^{name}==(.*)$", python, re.M).group(1)
    return {
        "socketioxide": f"{crate('socketioxide')} on tokio {crate('tokio')} and hyper {crate('hyper')}",
        "socket.io": f"{node} on Node {_output(['node', '--version'])}",
        "python-socketio": f"{pinned('python-socketio')} on uvicorn {pinned('uvicorn')}, uvloop {pinned('uvloop')}, "
        f"{platform.python_implementation()} {platform.python_version()}",
    }


def markdown(result):
    parts = [_machine_text(result), _goals(result["samples"]), _rates(result["samples"])]
    parts += [table(result["samples"]) for table in (_latencies, _processor, _memory)]
    return "\n\n".join(part for part in parts if part)


def recovery(result):
    """What recovery costs, in each of its settings."""
    samples = result["samples"]
    parts = [_machine_text(result, versions=False), _settings(samples)]
    return "\n\n".join(part for part in parts if part)


def write(path, text):
    """Puts the text between the two marks of a file."""
    page = Path(path).read_text()
    if BEGIN not in page or END not in page:
        raise SystemExit(f"{path} has no marks to write between")
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    Path(path).write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def number(value):
    """Three significant digits, as k and M where that is shorter."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}" if abs(value) < 999.5 * unit else f"{value / unit:.0f}{name}"
    return f"{value:.3g}" if abs(value) < 99.95 else f"{value:.0f}"


def _values(samples, case, server, key):
    figures = [cases.figure(sample, key) for sample in samples.get(case, {}).get(server, [])]
    return [figure for figure in figures if figure is not None]


def _median(samples, case, server, key):
    values = _values(samples, case, server, key)
    return statistics.median(values) if values else None


def _figure(samples, names, server, key):
    """The median of a case; of several cases the largest divided by the smallest, if each has one."""
    medians = [_median(samples, name, server, key) for name in names]
    if None in medians:
        return None
    return medians[0] if len(medians) == 1 else max(medians) / min(medians)


def _peers(samples, names, key):
    """The figures of the peers that have one."""
    medians = {peer.name: _figure(samples, names, peer.name, key) for peer in servers.SERVERS[1:]}
    return {name: value for name, value in medians.items() if value is not None}


def _present(samples, chosen):
    """Servers that have a sample in these cases."""
    known = [*servers.SERVERS, *servers.SETTINGS[1:]]
    return [server for server in known if any(server.name in samples.get(case.name, {}) for case in chosen)]


def _table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _machine_text(result, versions=True):
    it = result["machine"]
    # Samples from before it was noted have none.
    stores = f" The stores' files are on {it['file_system']}." if not versions and "file_system" in it else ""
    peers = "; ".join(f"{name} {version}" for name, version in it["versions"].items()) + ".\n" if versions else ""
    counts = [len(of_server) for of_case in result["samples"].values() for of_server in of_case.values()]
    rounds = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{min(counts)}"
    return (
        f"{it['date']}, commit {it['commit']}: {it['cores']} cores of {it['cpu']}, {it['memory_gb']} GB, "
        f"Linux {it['kernel']}, {it['rust']}.\n{peers}Rounds: {rounds}.{stores}"
    )


def _goals(samples):
    rows = []
    for goal in cases.GOALS:
        ours = _figure(samples, goal.cases, "tinysio", goal.key)
        if ours is None:
            continue
        peers = _peers(samples, goal.cases, goal.key)
        best = (min if goal.lower else max)(peers, key=peers.get) if peers else None
        met = ours <= goal.limit if goal.limit is not None else None
        if goal.factor is not None and best:
            ratio = ours / peers[best]
            met = ratio <= goal.factor if goal.lower else ratio >= goal.factor
            if goal.node and "node" in peers:
                met = met and ours >= goal.node * peers["node"]
        text = f"{ours / peers[best]:.2f} ×" if goal.factor is not None and best else number(ours)
        rows.append([goal.title, goal.text(), text, {True: "yes", False: "**no**", None: "–"}[met]])
    head = ["figure", "goal: × the best peer", "tinysio", "met"]
    return "### Against the goals\n\n" + _table(head, rows) if rows else ""


def _rates(samples):
    has_rate = lambda case: any("rate" in s for of in samples.get(case.name, {}).values() for s in of)
    chosen = [case for case in cases.CASES if has_rate(case)]
    chosen = [case for case in chosen if not isinstance(case, (cases.Growth, cases.Crowd, cases.Idle))]
    if not chosen:
        return ""
    columns = _present(samples, chosen)
    rows = []
    for case in chosen:
        ours = _median(samples, case.name, "tinysio", "rate")
        peers = _peers(samples, [case.name], "rate")
        ratio = f"**{ours / max(peers.values()):.2f}**" if peers and ours else "–"
        rows.append([case.title, *_medians(samples, case, columns), _spread(samples, case, columns), ratio])
    head = ["case", *(server.title for server in columns), "spread", "ratio"]
    text = _RATES + "\nIn brackets: the server's processor time for each, µs. Ratio: to the best peer."
    busy = [_busy(samples, case) for case in chosen if _busy(samples, case) is not None]
    text += f"\nFor tinysio the generator needs at most {max(busy):.0%} of a core." if busy else ""
    return "### Rates\n\n" + text + "\n\n" + _table(head, rows)


_RATES = (
    "Medians: messages a second; of broadcasts and rooms deliveries, of connects connections. Spread: the most less\n"
    "the least, in percent of the median, of the server where it is largest."
)


def _medians(samples, case, columns):
    cells = []
    for server in columns:
        median = _median(samples, case.name, server.name, "rate")
        each = _median(samples, case.name, server.name, "cpu_each_us")
        cpu = "" if each is None else f" ({number(each)})"
        cells.append("–" if median is None else number(median) + cpu)
    return cells


def _busy(samples, case):
    """The share of a core that the generator needs for tinysio."""
    shares = [s["own_cpu"] / s["seconds"] for s in samples[case.name].get("tinysio", []) if "own_cpu" in s]
    return statistics.median(shares) if shares else None


def _spread(samples, case, columns):
    of_servers = [_values(samples, case.name, server.name, "rate") for server in columns]
    spreads = [(max(values) - min(values)) / statistics.median(values) for values in of_servers if values]
    return f"{max(spreads):.0%}"


def _settings(samples):
    chosen = _cases_with(samples, "rate")
    columns = _present(samples, chosen)
    rows = []
    for case in chosen:
        off = _median(samples, case.name, "tinysio", "rate")
        row = [case.title]
        for server in columns:
            rate, p50 = (_median(samples, case.name, server.name, key) for key in ("rate", "p50_us"))
            if None in (off, rate, p50):
                row.append("–")
                continue
            text = f"{rate / off:.2f}" if server.recovers else number(rate)
            row.append(f"{text} ({p50 / 1000:.3g})")
        rows.append([*row, _spread(samples, case, columns)])
    head = ["case", *("off" if server is servers.OURS else server.title for server in columns), "spread"]
    text = _RATES + "\nWith recovery: the part of the rate without. In brackets: p50 of the latency in ms.\n\n"
    return "### Rates with recovery\n\n" + text + _table(head, rows)


def _cases_with(samples, key):
    """The cases of which some sample has this figure."""
    return [case for case in cases.CASES if any(s.get(key) for of in samples.get(case.name, {}).values() for s in of)]


def _latencies(samples):
    chosen = [case for case in _cases_with(samples, "p50_us") if not isinstance(case, cases.Growth)]
    rows = []
    for case in chosen:
        rows.append([case.title, *(_latency(samples, case.name, key) for key in ("p50_us", "p99_us"))])
    text = "Medians in milliseconds, in brackets the best peer's. Bold: a peer is faster.\n\n"
    return "### Latencies\n\n" + text + _table(["case", "p50", "p99"], rows) if rows else ""


def _latency(samples, case, key):
    ours, peers = _median(samples, case, "tinysio", key), _peers(samples, [case], key).values()
    if ours is None:
        return "–"
    best = min(peers, default=None)
    text = f"{ours / 1000:.3g}"
    if best is None:
        return text
    return f"**{text}** ({best / 1000:.3g})" if best < ours else f"{text} ({best / 1000:.3g})"


def _processor(samples):
    """The server's processor time: of growing numbers of connections, and at a load of a fixed rate."""
    crowds = [case for case in cases.CASES if isinstance(case, cases.Crowd)]
    chosen = [case for case in [*cases.GROWTH, *crowds] if case.name in samples]
    if not chosen:
        return ""
    columns = _present(samples, chosen)
    growth = [case.name for case in cases.GROWTH]
    lines = [(f"{case.title}: µs each", [case.name], "cpu_each_us") for case in cases.GROWTH if case in chosen]
    if len(lines) == len(growth):
        lines.append(("largest / smallest of these", growth, "cpu_each_us"))
    lines += [(f"{case.title}: % of a core", [case.name], "cpu_share") for case in crowds if case in chosen]
    rows = []
    for title, names, key in lines:
        figures = [_figure(samples, names, server.name, key) for server in columns]
        rows.append([title, *("–" if figure is None else number(figure) for figure in figures)])
    text = (
        "Medians of the server's processor time. Those who talk among 10,000 send an echo a second each, and have ten\n"
        f"broadcasts a second; in the {cases.Crowd.SECONDS} s each connection has one heartbeat.\n\n"
    )
    return "### Processor time\n\n" + text + _table(["", *(server.title for server in columns)], rows)


def _memory(samples):
    chosen = [case for case in cases.CASES if isinstance(case, (cases.Idle, cases.Start)) and case.name in samples]
    if not chosen:
        return ""
    columns = _present(samples, chosen)
    rows = []
    for case in chosen:
        for title, *keys, show in _IDLE if isinstance(case, cases.Idle) else _START:
            row = [f"{case.title}: {title}"]
            for server in columns:
                values = [_median(samples, case.name, server.name, key) for key in keys]
                row.append("–" if None in values else " / ".join(show(value) for value in values))
            rows.append(row)
    text = (
        f"KB of each connection with {servers.KERNEL_STACK_KB} KB of kernel stack for each thread, at once and after "
        f"{cases.Idle.PARKED:.0f} s of silence;\nprocessor seconds over "
        f"{cases.Idle.END - cases.Idle.AT_ONCE:.0f} s, in which each connection has one heartbeat.\n\n"
    )
    return "### Memory, idle and empty\n\n" + text + _table(["", *(server.title for server in columns)], rows)


# Rows: title, keys of a sample, how a value is shown.
_IDLE = [
    ("KB", "at_once_kb", "parked_kb", "{:.1f}".format),
    ("processor s", "idle_cpu", "{:.2f}".format),
]
_START = [
    ("ms to the first accept", "accept_ms", number),
    ("MB", "rss_kb", lambda kilobytes: number(kilobytes / 1024)),
    ("threads", "threads", "{:.0f}".format),
]
