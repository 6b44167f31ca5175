"""What is measured, and the goals."""

import os
import subprocess
import time

import generator
import servers


# The server has a core for itself; both share one.
APART = ("0", f"1-{os.cpu_count() - 1}")
TOGETHER = ("0", "0")


def figure(sample, key):
    """A figure of a sample, or one that follows from its others; `None` if it has none."""
    if key not in ("cpu_each_us", "cpu_share"):
        return sample.get(key)
    if sample.get("server_cpu") is None:
        return None
    if key == "cpu_share":
        return sample["server_cpu"] / sample["seconds"] * 100
    return sample["server_cpu"] / sample["count"] * 1e6


class Case:
    """One figure of the comparison: arguments of the generator, and what its result is called."""

    # What of a sample is told while the command runs.
    shown = ("rate", "p50_us", "p99_us", "server_cpu")

    # Servers that cannot carry the load.
    without = ()

    def __init__(self, name, title, args, unit="messages/s", cores=None):
        self.name = name
        self.title = title
        self.args = args
        self.unit = unit
        # The cores of the server and of the generator, as `taskset` has them; without, the scheduler's choice.
        self.cores = cores

    def files(self):
        """Open files that the generator and the server may need, each."""
        connections = self.args[self.args.index("--connections") + 1] if "--connections" in self.args else 0
        return int(connections) + 200

    def run(self, running, seconds):
        """One sample: a dictionary of numbers."""
        argv = generator.command(running, self.args)
        if "--messages" not in self.args:
            argv += ["--seconds", str(seconds)]
        if self.args[0] in ("broadcast", "rooms", "crowd") and not running.server.ordered_broadcasts:
            argv.append("--any-order")
        if running.server.recovers:
            argv.append("--offsets")
        if self.cores:
            argv = ["taskset", "-c", self.cores[1], *argv]
        return generator.measure(argv)


def _flight(name, title, mode, connections, window=1, size=64, **more):
    args = [mode, "--connections", str(connections), "--window", str(window), "--size", str(size)]
    return Case(name, title, args, **more)


def _deliveries(name, title, *args, **more):
    return _flight(name, title, *args, unit="deliveries/s", **more)


class Growth(Case):
    """Echoes of a number of connections, for the processor time that each echo costs."""

    shown = ("rate", "cpu_each_us")

    def __init__(self, connections):
        title = f"echo, {connections:,} connections"
        super().__init__(f"growth{connections}", title, ["echo", "--connections", str(connections)])


class Crowd(Case):
    """A load of a rate of its own, beside many connections that say nothing."""

    # In this time each connection has one heartbeat.
    SECONDS = 25

    shown = ("cpu_share", "p50_us", "p99_us")
    without = ("python",)

    def run(self, running, seconds):
        return super().run(running, self.SECONDS)


class Idle(Case):
    """Memory and processor time of connections that say nothing."""

    AT_ONCE, PARKED, END = 0.5, 15.0, 26.0

    shown = ("at_once_kb", "parked_kb", "idle_cpu")

    def run(self, running, seconds):
        empty = running.status()
        argv = [*generator.command(running, self.args), "--seconds", "60"]
        holder = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            line = holder.stdout.readline()
            # Without a line it has ended.
            sample = generator.parse(line, "" if line else holder.stderr.read())
            begun = time.monotonic()
            for label, moment in (("at_once", self.AT_ONCE), ("parked", self.PARKED), ("end", self.END)):
                time.sleep(max(0.0, begun + moment - time.monotonic()))
                if holder.poll() is not None:
                    raise RuntimeError(f"idle connections were lost: {holder.stderr.read().strip()}")
                status = running.status()
                count = sample["connections"]
                resident = (status["rss_kb"] - empty["rss_kb"]) / count
                kernel = max(0, status["threads"] - empty["threads"]) * servers.KERNEL_STACK_KB / count
                sample[f"{label}_resident_kb"] = resident
                sample[f"{label}_stack_kb"] = kernel
                sample[f"{label}_kb"] = resident + kernel
                sample[f"{label}_threads"] = status["threads"]
                sample[f"{label}_cpu"] = status["cpu"]
            sample["idle_cpu"] = sample["end_cpu"] - sample["at_once_cpu"]
            return sample
        finally:
            holder.terminate()
            holder.wait()
            holder.stdout.close()
            holder.stderr.close()


class Start(Case):
    """Start to first accept, and what an empty server holds."""

    shown = ("accept_ms", "rss_kb", "threads")

    def run(self, running, seconds):
        time.sleep(0.3)
        status = running.status()
        return {"accept_ms": running.accept_ms, "rss_kb": status["rss_kb"], "threads": status["threads"]}


ECHO64 = _flight("echo64", "echo, 64 connections", "echo", 64)

# From the fewest connections to the most.
GROWTH = [Growth(16), ECHO64, Growth(256), Growth(1024), Growth(4096)]


CASES = [
    _flight("echo1", "echo, 1 connection", "echo", 1),
    _flight("echo1-together", "echo, 1 connection, both sides on one core", "echo", 1, cores=TOGETHER),
    ECHO64,
    _flight("echo512", "echo, 512 connections", "echo", 512),
    _flight("echo64-one-core", "echo, 64 connections, server on one core", "echo", 64, cores=APART),
    _flight("echo64-w8", "echo, 64 connections, 8 in flight each", "echo", 64, 8),
    _flight("ack64", "acknowledgement, 64 connections", "ack", 64),
    _flight("echo64-1k", "echo, 64 connections, 1 KiB", "echo", 64, 1, 1024),
    _flight("echo64-16k", "echo, 64 connections, 16 KiB", "echo", 64, 1, 16384),
    _flight("binary64", "binary echo, 64 connections", "binary", 64),
    _deliveries("broadcast256-w1", "broadcast to 256, window 1", "broadcast", 256),
    _deliveries("broadcast256-w16", "broadcast to 256, window 16", "broadcast", 256, 16),
    _deliveries("broadcast256-1k", "broadcast to 256, window 16, 1 KiB", "broadcast", 256, 16, 1024),
    _deliveries("broadcast1000-w4", "broadcast to 1,000, window 4", "broadcast", 1000, 4),
    _deliveries("rooms", "rooms, 16 of 16, window 4", "rooms", 256, 4),
    _flight("polling16", "polling echo, 16 clients", "polling", 16),
    Case(
        "connects",
        "WebSocket connects, 10,000, 16 at once",
        ["connects", "--window", "16", "--messages", "10000"],
        "connects/s",
    ),
    Case(
        "upgrades",
        "connects by polling, then upgrade, 2,000, 64 at once",
        ["upgrades", "--window", "64", "--messages", "2000"],
        "connects/s",
    ),
    *(case for case in GROWTH if case is not ECHO64),
    _flight("slow", "echo, 63 connections beside one with a handler of 50 ms", "slow", 64),
    Crowd(
        "crowd",
        "10,000 connected, 1,000 talk",
        ["crowd", "--connections", "10000", "--talkers", "1000"],
    ),
    Idle("idle1000", "1,000 idle connections", ["idle", "--connections", "1000"], "KB each"),
    Idle("idle10000", "10,000 idle connections", ["idle", "--connections", "10000"], "KB each"),
    Start("start", "started and empty", [], "ms"),
]


# What recovery is measured with.
RECOVERY = ["echo1", "echo64", "echo64-w8", "ack64", "broadcast256-w1", "broadcast256-w16", "rooms", "polling16"]


class Goal:
    """A line of the goals: `ours / best peer` must be at least, or at most, `factor`; or ours at most `limit`.

    The figure is that of a case. Of several cases it is the largest divided by the smallest.
    """

    def __init__(self, title, case, key, factor=None, limit=None, lower=False, node=None):
        self.title, self.key = title, key
        self.cases = [case] if isinstance(case, str) else case
        self.factor, self.limit, self.lower, self.node = factor, limit, lower, node

    def text(self):
        if self.limit is not None:
            return f"≤ {self.limit:g}"
        text = f"{'≤' if self.lower else '≥'} {self.factor:g} ×"
        return text + (f", ≥ {self.node:g} × Node" if self.node else "")


def _rate(title, case, factor, **more):
    unit = "deliveries/s" if case.startswith(("broadcast", "rooms")) else "messages/s"
    return Goal(f"{title}: {unit}", case, "rate", factor, **more)


def _latency(title, case, percentile, factor):
    return Goal(f"{title}: {percentile}, µs", case, f"{percentile}_us", factor, lower=True)


def _processor(title, case, factor):
    return Goal(f"{title}: processor time of each, µs", case, "cpu_each_us", factor, lower=True)


GOALS = [
    _rate("echo, 64 connections", "echo64", 1.4),
    _latency("echo, 64 connections", "echo64", "p99", 1.0),
    _processor("echo, 64 connections", "echo64", 0.65),
    _rate("echo, 512 connections", "echo512", 1.4),
    _latency("echo, 512 connections", "echo512", "p99", 0.8),
    _processor("echo, 512 connections", "echo512", 0.65),
    _rate("echo, 64 connections, server on one core", "echo64-one-core", 1.2),
    _latency("echo, 1 connection", "echo1", "p50", 0.45),
    _latency("echo, 1 connection, both sides on one core", "echo1-together", "p50", 0.85),
    _rate("acknowledgement, 64 connections", "ack64", 1.4),
    _rate("binary echo, 64 connections", "binary64", 1.4),
    _rate("echo, 64 connections, 1 KiB", "echo64-1k", 1.5),
    _rate("echo, 64 connections, 16 KiB", "echo64-16k", 2.0),
    _rate("echo, 64 connections, 8 in flight", "echo64-w8", 1.2),
    _latency("echo, 64 connections, 8 in flight", "echo64-w8", "p99", 1.0),
    _rate("broadcast to 256, window 1", "broadcast256-w1", 1.4),
    _latency("broadcast to 256, window 1", "broadcast256-w1", "p99", 1.0),
    _rate("broadcast to 256, window 16", "broadcast256-w16", 2.0, node=10),
    _latency("broadcast to 256, window 16", "broadcast256-w16", "p99", 1.0),
    _rate("broadcast to 1,000, window 4", "broadcast1000-w4", 1.7),
    _latency("broadcast to 1,000, window 4", "broadcast1000-w4", "p99", 1.0),
    _rate("rooms, 16 of 16, window 4", "rooms", 1.7),
    _latency("rooms, 16 of 16, window 4", "rooms", "p99", 1.0),
    _rate("polling echo, 16 clients", "polling16", 1.4),
    _latency("polling echo, 16 clients", "polling16", "p99", 1.0),
    Goal("WebSocket connects/s", "connects", "rate", 1.15),
    Goal("connects by polling, then upgrade: connects/s", "upgrades", "rate", 1.1),
    Goal(
        "echo, 16 to 4,096 connections: processor time of each, largest / smallest",
        [case.name for case in GROWTH],
        "cpu_each_us",
        limit=1.25,
        lower=True,
    ),
    Goal("63 connections beside a slow handler: p99, µs", "slow", "p99_us", limit=5000, lower=True),
    Goal("idle connection of 10,000, after 15 s: KB", "idle10000", "parked_kb", limit=4.5, lower=True),
    Goal("10,000 idle connections, 26 s: processor s", "idle10000", "idle_cpu", limit=0.3, lower=True),
    Goal("resident, started and empty: KB", "start", "rss_kb", limit=2560, lower=True),
    Goal("start to first accept: ms", "start", "accept_ms", limit=10, lower=True),
]
