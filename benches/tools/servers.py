"""The servers that are compared: how each is built, started, looked at and ended."""

import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benches" / "peers"
NODE, PYTHON, OXIDE = PEERS / "node", PEERS / "python", PEERS / "socketioxide"

# A thread costs this much of kernel stack on x86-64 and aarch64, which no process's resident memory shows.
KERNEL_STACK_KB = 16


def target(project):
    # Where cargo puts what it builds; CARGO_TARGET_DIR would mix the projects, so peers do not get it.
    if project == ROOT and os.environ.get("CARGO_TARGET_DIR"):
        return Path(os.environ["CARGO_TARGET_DIR"])
    return project / "target"


class Server:
    """A server of the comparison: its name in the tables, and its command but for the port, and the file of its store."""

    def __init__(self, name, title, command, ordered_broadcasts=True, recovers=False):
        self.name = name
        self.title = title
        self.command = command
        # Whether the broadcasts of one connection arrive in its order. Where they do not, the generator checks
        # that everything arrives once.
        self.ordered_broadcasts = ordered_broadcasts
        self.recovers = recovers

    def argv(self, port, folder):
        return [part.format(port=port, store=Path(folder, "store")) for part in self.command]


def _oxide(flavour):
    return [str(OXIDE / "target/release/socketioxide-peer"), "{port}", flavour]


# As it is shipped: one static file, which `cargo static` puts into a folder of the machine's kind.
HOST = subprocess.run(["rustc", "--print", "host-tuple"], capture_output=True, text=True, check=True).stdout.strip()
OURS = Server("tinysio", "tinysio", [str(target(ROOT) / HOST / "release/examples/bench_server"), "{port}"])
SERVERS = [
    OURS,
    # Its handlers of broadcasts are tasks of their own, and tasks of two threads overtake each other.
    Server("oxide-multi", "socketioxide, multi-threaded", _oxide("multi"), ordered_broadcasts=False),
    Server("oxide-single", "socketioxide, current-thread", _oxide("single")),
    Server("node", "Node socket.io", ["node", str(NODE / "server.js"), "{port}"]),
    Server("python", "python-socketio", [str(PYTHON / ".venv/bin/python"), str(PYTHON / "server.py"), "{port}"]),
]


def _recovering(name, title, *options):
    return Server(name, title, [*OURS.command, *options], recovers=True)


# Ours with connection state recovery, beside itself without.
SETTINGS = [
    OURS,
    _recovering("memory", "in memory", "--recovery"),
    _recovering("every-packet", "on disk, every packet", "--store", "{store}"),
    _recovering("every-100ms", "on disk, every 100 ms", "--store", "{store}", "--every", "100"),
]


def build(names):
    """Builds and installs what these servers need. Returns those that can run here."""
    cargo = ["cargo", "build", "--release", "--quiet"]
    run = lambda argv, folder: subprocess.run(argv, cwd=folder, check=True)
    settings = [server.name for server in SETTINGS if server.name in names]
    features = ["--features", "store"] if len(settings) > 1 else []
    ours = ["cargo", "static", "--release", "--quiet", "--example", "bench_server", "--no-default-features", *features]
    run(ours, ROOT)
    run([*cargo, "--bench", "load"], ROOT)
    usable = settings
    if any(name.startswith("oxide") for name in names):
        environment = {key: value for key, value in os.environ.items() if key != "CARGO_TARGET_DIR"}
        subprocess.run(cargo, cwd=OXIDE, check=True, env=environment)
        usable += ["oxide-multi", "oxide-single"]
    if "node" in names:
        if shutil.which("node") and shutil.which("npm"):
            run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--silent"], NODE)
            usable.append("node")
        else:
            print("node or npm is missing: Node is left out")
    if "python" in names:
        if not (PYTHON / ".venv/bin/python").exists():
            run(["python3", "-m", "venv", ".venv"], PYTHON)
        pip = [".venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"]
        run(pip, PYTHON)
        usable.append("python")
    return usable


def raise_limits():
    """As many open files as the system allows, here and in all that is started from here. Returns the number."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


class Running:
    """A server that runs, until the block ends."""

    def __init__(self, server, port, cores=None, wrapper=()):
        self.server, self.port = server, port
        # On the disk that the project is on: memory that looks like a disk would cost nothing.
        self.folder = tempfile.TemporaryDirectory(prefix="store-", dir=target(ROOT))
        taskset = ["taskset", "-c", cores] if cores else []
        self.argv = [*wrapper, *taskset, *server.argv(port, self.folder.name)]

    def __enter__(self):
        if _listens(self.port):
            raise RuntimeError(f"somebody listens on port {self.port} already; choose another with --port")
        self.began = time.monotonic()
        self.process = subprocess.Popen(self.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not _listens(self.port):
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.server.title} ended before it listened: {' '.join(self.argv)}")
                if time.monotonic() - self.began > 60:
                    raise RuntimeError(f"{self.server.title} did not listen within a minute")
                time.sleep(0.0002)
            self.accept_ms = (time.monotonic() - self.began) * 1000
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def status(self):
        """Resident kilobytes, threads, and processor seconds so far."""
        fields = {}
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            fields[key] = value.split()
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(stat[11]) + int(stat[12])
        return {
            "rss_kb": int(fields["VmRSS"][0]),
            "threads": int(fields["Threads"][0]),
            "cpu": ticks / os.sysconf("SC_CLK_TCK"),
        }


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
