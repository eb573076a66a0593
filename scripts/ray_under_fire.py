"""A sweep of 200 cells on Ray while workers, a raylet and the driver are killed, against the same run locally.

    python scripts/ray_under_fire.py           # all of it, on two processors that are free
    python scripts/ray_under_fire.py speed     # one part: local, fire, speed

A Ray cluster of two raylets on this machine, one processor each; a tiny random backbone built on the fly; methods
without training, trained on frozen states, and fine-tuned, on the embedded tasks. Writes
results/scale/ray_under_fire.{json,md}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the harness is that of the tests
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")

import numpy as np  # noqa: E402
import psutil  # noqa: E402

from fusebench.benchmarks.atomic import atomic_write  # noqa: E402
from tests.killed_runs import kept  # noqa: E402
from tests.tiny_models import save  # noqa: E402

FREE = (
    "mean,mean(layer=0),mean(layer=1),mean(layer=2),cls,cls(layer=1),cls(layer=2),max,last-token,max(layer=1),"
    "weighted-mean,first-last,last-k-mean(k=2),last-k-sum(k=2),last-k-concat(k=2),layer-mean,max-cls,max-mean,"
    "sbert-wk,mean+whiten(k=8)"
)
HEADS = "layer-attention,hire,bigru,scalar-mix,mlp,cls-lstm,dwatt,squeeze-gate"
TUNED = "mean,cls,max,first-last,layer-attention,scalar-mix,mlp,squeeze-gate"
_HEALTH = {"initial_delay_ms": 0, "period_ms": 1000, "failure_threshold": 3}
CELLS = 200  # (20 + 8 x 5 + 8 x 5) methods and seeds, two tasks each


def sweep(world: Path, out: Path, *more: str) -> list[list[str]]:
    """The two commands of the sweep: frozen and fine-tuned methods."""
    common = ["--backbone", str(world / "tiny-bert"), "--out", str(out), "--limit", "40", "--limit-train", "64"]
    common += ["--seeds", "0,1,2,3,4", "--steps", "6", "--batch-size", "8", "--device", "cpu", "--no-test", *more]
    tuned = ",".join(f"{name}+batch-softmax" for name in TUNED.split(","))
    return [
        ["--methods", f"{FREE},{HEADS}", *common],
        ["--methods", tuned, "--regime", "finetune", *common],
    ]


def start(arguments: list[str], said: Path) -> subprocess.Popen[bytes]:
    """The command line in a process of its own."""
    with said.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "fusebench.run_bench", *arguments], stdout=file, stderr=subprocess.STDOUT
        )


def run(arguments: list[str], said: Path) -> None:
    """Runs the command line to its end."""
    process = start(arguments, said)
    try:
        if process.wait():
            raise RuntimeError(said.read_text()[-2000:])
    finally:
        process.kill()


class TwoRaylets:
    """A Ray cluster of two raylets on this machine, whose second one can be killed and replaced."""

    def __init__(self, second: bool = True) -> None:
        from ray.cluster_utils import Cluster

        self._node = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
        # A dead raylet is noticed after three seconds instead of half a minute.
        health = {f"health_check_{name}": value for name, value in _HEALTH.items()}
        head = {**self._node, "include_dashboard": False, "_system_config": health}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.second: Any = None
        if second:
            self.add_second()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return str(self.cluster.address)

    def workers(self) -> list[psutil.Process]:
        """Processes that are at a unit; other children of a raylet are its agents."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.cluster.list_all_nodes()]
        found = []
        for pid in raylets:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [
                    one for one in psutil.Process(pid).children(recursive=True) if _title(one).startswith("ray::work")
                ]
        return found

    def kill_second(self) -> None:
        """Kills the second raylet, its workers and its object store."""
        self.cluster.remove_node(self.second, allow_graceful=False)

    def add_second(self) -> None:
        """Another machine takes its place."""
        # By its address a driver tells the two apart: it belongs to the first.
        self.second = self.cluster.add_node(**self._node, node_ip_address="127.0.0.2")

    def close(self) -> None:
        """Ends the cluster's processes."""
        self.cluster.shutdown()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class KillLog:
    """What was killed, kept in a file: a fire that is interrupted goes on when it is asked for again."""

    def __init__(self, path: Path, out: Path) -> None:
        self.path, self.out, self.began = path, out, time.monotonic()
        self.before = max((kill["seconds"] for kill in self.read()), default=0.0)

    def note(self, what: str) -> None:
        """Adds a kill."""
        seconds = round(self.before + time.monotonic() - self.began, 1)
        with self.path.open("a") as file:
            file.write(json.dumps({"seconds": seconds, "killed": what, "records": records_in(self.out)}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All kills so far."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


def shoot(cluster: TwoRaylets, log: KillLog, draw: random.Random, over: Callable[[], bool]) -> None:
    """Until it is over, kills a worker that is at a unit every 12 to 25 seconds, and once the second raylet."""
    began, raylet_lives = time.monotonic(), True
    at = began + draw.uniform(12, 25)
    while not over():
        time.sleep(0.2)
        if time.monotonic() < at:
            continue
        at = time.monotonic() + draw.uniform(12, 25)
        if raylet_lives and time.monotonic() - began > 30:
            raylet_lives = False
            log.note("raylet")
            cluster.kill_second()
            cluster.add_second()
        elif busy := cluster.workers():
            log.note("worker")
            with contextlib.suppress(psutil.NoSuchProcess):
                draw.choice(busy).kill()


def records_in(out: Path) -> int:
    """Finished cells."""
    return sum(1 for _ in out.glob("runs/*/*/*.json"))


def fire(world: Path, here: Path, folder: Path, seed: int) -> dict[str, Any]:
    """The sweep on Ray under fire, its driver killed too, and what differs from the run in `here`."""
    out, said = folder / "ray", folder / "ray.txt"
    cluster, draw, log = TwoRaylets(), random.Random(seed), KillLog(folder / "kills.jsonl", out)
    try:
        frozen, tuned = sweep(world, out, "--executor", f"ray:{cluster.address}")

        def commands() -> None:
            run(frozen, said)
            if not any(kill["killed"] == "driver" for kill in log.read()):
                driver, enough = start(tuned, said), records_in(out) + 10
                while records_in(out) < enough and driver.poll() is None:
                    time.sleep(0.2)
                log.note("driver")
                driver.kill()
                driver.wait()
            run(tuned, said)

        with ThreadPoolExecutor(1) as aside:  # only the main thread may start a raylet
            whole = aside.submit(commands)
            shoot(cluster, log, draw, whole.done)
            whole.result()
    finally:
        cluster.close()
    found, expected = kept(out), kept(here)
    same = {name: getattr(found, name) == getattr(expected, name) for name in ("records", "weights", "logs")}
    differences = [
        float(np.abs(found.numbers[cell] - numbers).max()) if cell in found.numbers else float("nan")
        for cell, numbers in expected.numbers.items()
    ]
    return {
        "seconds": round(log.before + time.monotonic() - log.began, 1),
        "kills": log.read(),
        "cells": len(found.records),
        "bitwise": sum(difference == 0 for difference in differences),
        "largest": max(differences),
        **same,
    }


def local(world: Path, folder: Path) -> dict[str, Any]:
    """The sweep in one process after the other."""
    for command in sweep(world, folder / "local", "--cpus", "1"):
        run(command, folder / "local.txt")
    return {"cells": records_in(folder / "local")}


def speed(folder: Path) -> dict[str, Any]:
    """Seconds of two workloads in one process, on one worker and on two, one thread each; workers have started."""
    import ray
    import torch

    from fusebench.benchmarks.store import Store
    from fusebench.methods.registry import load_plugins
    from fusebench.study.commands import options_of
    from fusebench.study.execute import Executor, execute
    from fusebench.study.flags import run_parser
    from fusebench.study.plan import make_plan

    load_plugins()
    torch.set_num_threads(1)
    save("bert", folder / "tiny-bert")
    workloads = {
        "pass": ["--methods", "mean,cls,max,max-mean,sbert-wk,layer-mean,mean+whiten(k=8),hire(untrained)"],
        "fine-tuning": ["--methods", ",".join(f"{name}+batch-softmax" for name in TUNED.split(",")), "--regime"],
        "small cells": ["--methods", FREE, "--limit", "20", "--backbone", str(folder / "tiny-bert")],
    }
    workloads["fine-tuning"] += ["finetune", "--steps", "30", "--batch-size", "16"]
    workloads["fine-tuning"] += ["--limit", "20", "--backbone", str(folder / "tiny-bert")]
    found: dict[str, Any] = {name: {} for name in workloads}
    starting = {"start": ["--methods", "mean,cls,max", *workloads["small cells"][2:]]}  # of the workers; not kept

    def timed(name: str, place: str, executor: Executor) -> None:
        out = folder / f"{name}-{place}".replace(" ", "-")
        plan = make_plan(
            options_of(run_parser().parse_args([*(workloads | starting)[name], "--out", str(out), "--device", "cpu"]))
        )
        started = time.monotonic()
        outcome = execute(plan, Store(out), executor)
        assert not outcome.failures, outcome.failures
        if name in found:
            found[name] |= {place: round(time.monotonic() - started, 2), "cells": outcome.finished}

    for name in workloads:
        timed(name, "local", Executor(cpus=1))
    for workers in (1, 2):
        cluster = TwoRaylets(second=workers == 2)
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            for name in ("start", *workloads):
                timed(name, f"ray-{workers}", Executor("ray"))
        finally:
            ray.shutdown()
            cluster.close()
    return found


def table(held: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# Ray under fire",
        "",
        "Made by `python scripts/ray_under_fire.py`: a Ray cluster of two raylets on one machine, a processor each; "
        "a tiny random BERT; 20 training-free methods, 8 heads trained frozen and 8 fine-tuned methods with five "
        "seeds each, on both embedded tasks.",
        "",
    ]
    if "fire" in held:
        found, kills = held["fire"], [one["killed"] for one in held["fire"]["kills"]]
        lines += [
            f"- Killed by SIGKILL during the sweep: {kills.count('worker')} workers at a unit, "
            f"{kills.count('raylet')} raylet with its object store, {kills.count('driver')} driver, whose "
            "command was then given again.",
            f"- {found['cells']} of {CELLS} cells recorded; scores and samples equal those of the run in one "
            f"process to the last bit in {found['bitwise']}; the largest difference is {found['largest']:.0e}.",
            "- Everything else in the records, the weights and the training logs: "
            + ("equal." if found["records"] and found["weights"] and found["logs"] else "NOT equal."),
            f"- {found['seconds']:.0f} s under fire, with what was started again.",
            "",
        ]
    if "speed" in held:
        lines += [
            "Seconds on one thread a process, workers started and the backbone loaded by none:",
            "",
            "| work | cells | in one process | 1 worker | 2 workers | speed-up | overhead a cell, 1 worker |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, one in held["speed"].items():
            overhead = 1000 * (one["ray-1"] - one["local"]) / one["cells"]
            lines.append(
                f"| {name} | {one['cells']} | {one['local']:.1f} | {one['ray-1']:.1f} | {one['ray-2']:.1f} | "
                f"{one['ray-1'] / one['ray-2']:.2f} | {overhead:.0f} ms |"
            )
        lines.append("")
    if "fire" in held:
        lines += ["| seconds | killed | records by then |", "| ---: | --- | ---: |"]
        lines += [f"| {one['seconds']} | {one['killed']} | {one['records']} |" for one in held["fire"]["kills"]]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Runs the parts asked for, keeps the others' last results, writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["local", "fire", "speed"], default=["local", "fire", "speed"])
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--work", type=Path, help="keep the runs here: what was interrupted goes on in another call")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "scale")
    flags = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster is ended then too
    path = flags.out / "ray_under_fire.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    with contextlib.ExitStack() as stack:
        folder = flags.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "world").exists():
            save("bert", folder / "world" / "tiny-bert")
        if "local" in flags.parts:
            held["local"] = local(folder / "world", folder)
        if "fire" in flags.parts:
            held["fire"] = {"seed": flags.seed, **fire(folder / "world", folder / "local", folder, flags.seed)}
        if "speed" in flags.parts:
            held["speed"] = speed(folder)
    atomic_write(path, json.dumps(held, indent=1) + "\n")
    atomic_write(flags.out / "ray_under_fire.md", table(held))
    fired = held.get("fire", {"bitwise": CELLS})
    return 0 if fired["bitwise"] == CELLS else 1


if __name__ == "__main__":
    raise SystemExit(main())
