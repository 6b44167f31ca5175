"""The load generator `benches/load`, as a process."""

import json
import subprocess

import servers


def path():
    """The binary: cargo's newest of that name."""
    folder = servers.target(servers.ROOT) / "release/deps"
    found = [path for path in folder.glob("load-*") if path.suffix == ""]
    return str(max(found, key=lambda path: path.stat().st_mtime))


def command(running, args):
    """Its command line against a server that runs."""
    return [path(), *args, "--port", str(running.port), "--pid", str(running.process.pid)]


def measure(argv):
    """Runs it to its end. Its result, or a RuntimeError with what it has to say."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return parse(out, errors)


def parse(line, errors):
    """The result that it printed, or a RuntimeError with its errors."""
    if not line.strip():
        raise RuntimeError(errors.strip() or "no result")
    return json.loads(line)
