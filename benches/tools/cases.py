"""What is measured, and the goals."""

import os
import subprocess
import time

import generator
import servers


# The server has a core for itself; both share one.
APART = ("0", f"1-{os.cpu_count() - 1}")
TOGETHER = ("0", "0")


class Case:
    """One figure of the comparison: arguments of the generator, and what its result is called."""

    # What of a sample is told while the command runs.
    shown = ("rate", "p50_us", "p99_us", "server_cpu")

    def __init__(self, name, title, args, unit="messages/s", cores=None):
        self.name = name
        self.title = title
        self.args = args
        self.unit = unit
        # The cores of the server and of the generator, as `taskset` has them; without, the scheduler's choice.
        self.cores = cores

    def run(self, running, seconds):
        """One sample: a dictionary of numbers."""
        argv = generator.command(running, self.args)
        if "--messages" not in self.args:
            argv += ["--seconds", str(seconds)]
        if self.args[0] in ("broadcast", "rooms") and not running.server.ordered_broadcasts:
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


CASES = [
    _flight("echo1", "echo, 1 connection", "echo", 1),
    _flight("echo1-together", "echo, 1 connection, both sides on one core", "echo", 1, cores=TOGETHER),
    _flight("echo64", "echo, 64 connections", "echo", 64),
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
    Idle("idle1000", "1,000 idle connections", ["idle", "--connections", "1000"], "KB each"),
    Idle("idle10000", "10,000 idle connections", ["idle", "--connections", "10000"], "KB each"),
    Start("start", "started and empty", [], "ms"),
]


# What recovery is measured with.
RECOVERY = ["echo1", "echo64", "echo64-w8", "ack64", "broadcast256-w1", "broadcast256-w16", "rooms", "polling16"]


class Goal:
    """A line of the goals: `ours / best peer` must be at least, or at most, `factor`; or ours at most `limit`."""

    def __init__(self, title, case, key, factor=None, limit=None, lower=False, node=None):
        self.title, self.case, self.key = title, case, key
        self.factor, self.limit, self.lower, self.node = factor, limit, lower, node

    def text(self):
        if self.limit is not None:
            return f"≤ {self.limit:g}"
        text = f"{'≤' if self.lower else '≥'} {self.factor:g} ×"
        return text + (f", ≥ {self.node:g} × Node" if self.node else "")


GOALS = [
    Goal("echo, 64 connections: messages/s", "echo64", "rate", 1.1),
    Goal("echo, 64 connections: p99, µs", "echo64", "p99_us", 0.9, lower=True),
    Goal("echo, 1 connection: p50, µs", "echo1", "p50_us", 0.9, lower=True),
    Goal("echo, 1 connection, both sides on one core: p50, µs", "echo1-together", "p50_us", 0.9, lower=True),
    Goal("echo, server on one core: messages/s", "echo64-one-core", "rate", 1.0),
    Goal("broadcast 256, window 16: deliveries/s", "broadcast256-w16", "rate", 1.25, node=10),
    Goal("broadcast 256, window 1: deliveries/s", "broadcast256-w1", "rate", 1.25),
    Goal("echo, 64 connections, 8 in flight: messages/s", "echo64-w8", "rate", 1.0),
    Goal("broadcast to 1,000, window 4: deliveries/s", "broadcast1000-w4", "rate", 1.15),
    Goal("rooms 16 × 16, window 4: deliveries/s", "rooms", "rate", 1.1),
    Goal("polling echo, 16 clients: messages/s", "polling16", "rate", 1.1),
    Goal("WebSocket connects/s", "connects", "rate", 1.0),
    Goal("idle connection of 10,000, after 15 s: KB", "idle10000", "parked_kb", limit=8, lower=True),
    Goal("resident, started and empty: KB", "start", "rss_kb", limit=2560, lower=True),
    Goal("start to first accept: ms", "start", "accept_ms", limit=10, lower=True),
]
