"""A sweep of 200 cells on Ray while workers, a raylet and the driver are killed, against the same run locally.

    python scripts/ray_under_fire.py           # all of it: about ten minutes on two processors
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
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the harness is that of the tests
os.environ.update(RAY_USAGE_STATS_ENABLED="0", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")

import numpy as np  # noqa: E402
import psutil  # noqa: E402

from fusebench.benchmarks.atomic import atomic_write  # noqa: E402
from tests.killed_runs import kept  # noqa: E402
from tests.tiny_models import save  # noqa: E402

FREE = (
    "mean,mean(layer=0),mean(layer=1),mean(layer=2),cls,cls(layer=0),cls(layer=1),cls(layer=2),max,last-token,"
    "weighted-mean,first-last,last-k-mean(k=2),last-k-sum(k=2),last-k-concat(k=2),layer-mean,max-cls,max-mean,"
    "sbert-wk,mean+whiten(k=8)"
)
HEADS = "layer-attention,hire,bigru,scalar-mix,mlp,cls-lstm,dwatt,squeeze-gate"
TUNED = "mean,cls,max,first-last,layer-attention,scalar-mix,mlp,squeeze-gate"
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


def run(arguments: list[str], said: Path) -> float:
    """Runs the command line to its end; seconds."""
    started = time.monotonic()
    if start(arguments, said).wait():
        raise RuntimeError(said.read_text()[-2000:])
    return time.monotonic() - started


class TwoRaylets:
    """A Ray cluster of two raylets on this machine, whose second one can be killed and replaced."""

    def __init__(self, second: bool = True) -> None:
        from ray.cluster_utils import Cluster

        self._node = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args={**self._node, "include_dashboard": False})
        self.second = self.cluster.add_node(**self._node) if second else None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return str(self.cluster.address)

    def workers(self) -> list[psutil.Process]:
        """Processes of this cluster's raylets that do units or wait for them."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.cluster.list_all_nodes()]
        found = []
        for pid in raylets:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [
                    one for one in psutil.Process(pid).children(recursive=True) if _title(one).startswith("ray::")
                ]
        return found

    def kill_second(self) -> None:
        """Kills the second raylet, its workers and its object store."""
        self.cluster.remove_node(self.second, allow_graceful=False)

    def add_second(self) -> None:
        """Another machine takes its place."""
        self.second = self.cluster.add_node(**self._node)

    def close(self) -> None:
        """Ends the cluster's processes."""
        self.cluster.shutdown()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextlib.contextmanager
def under_fire(cluster: TwoRaylets, out: Path, draw: random.Random, kills: list[dict[str, Any]]) -> Iterator[None]:
    """Within, kills a worker that is at a unit every few seconds, and once the second raylet."""
    over, began = threading.Event(), time.monotonic()

    def note(what: str) -> None:
        kills.append({"seconds": round(time.monotonic() - began, 1), "killed": what, "records": records_in(out)})

    def fire() -> None:
        raylet_at = draw.uniform(30, 45)
        while not over.wait(draw.uniform(7, 14)):
            if time.monotonic() - began > raylet_at:
                raylet_at = float("inf")
                note("raylet")
                cluster.kill_second()
                over.wait(3)
                cluster.add_second()
                continue
            busy = [one for one in cluster.workers() if "IDLE" not in _title(one)]
            if busy:
                victim = draw.choice(busy)
                note("worker")
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()

    thread = threading.Thread(target=fire)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def records_in(out: Path) -> int:
    """Finished cells."""
    return sum(1 for _ in out.glob("runs/*/*/*.json"))


def fire(world: Path, here: Path, folder: Path, seed: int) -> dict[str, Any]:
    """The sweep on Ray under fire, its driver killed too, and what differs from the run in `here`."""
    out, said, kills = folder / "ray", folder / "ray.txt", []
    cluster, draw, began = TwoRaylets(), random.Random(seed), time.monotonic()
    try:
        frozen, tuned = sweep(world, out, "--executor", f"ray:{cluster.address}")
        with under_fire(cluster, out, draw, kills):
            run(frozen, said)
            driver = start(tuned, said)
            enough = records_in(out) + 10
            while records_in(out) < enough and driver.poll() is None:
                time.sleep(0.2)
            kills.append({"seconds": None, "killed": "driver", "records": records_in(out)})
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            run(tuned, said)
    finally:
        cluster.close()
    found, expected = kept(out), kept(here)
    same = {name: getattr(found, name) == getattr(expected, name) for name in ("records", "weights", "logs")}
    differences = [
        float(np.abs(found.numbers[cell] - numbers).max()) if cell in found.numbers else float("nan")
        for cell, numbers in expected.numbers.items()
    ]
    return {
        "seconds": round(time.monotonic() - began, 1),
        "kills": kills,
        "cells": len(found.records),
        "bitwise": sum(difference == 0 for difference in differences),
        "largest": max(differences),
        **same,
    }


def local(world: Path, folder: Path) -> dict[str, Any]:
    """The sweep in one process after the other."""
    seconds = [run(command, folder / "local.txt") for command in sweep(world, folder / "local", "--cpus", "1")]
    return {"seconds": round(sum(seconds), 1), "cells": records_in(folder / "local")}


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
        "pass": ["--methods", f"{FREE},hire(untrained)", "--suite", "embedded"],
        "fine-tuning": ["--methods", ",".join(f"{name}+batch-softmax" for name in TUNED.split(",")), "--regime"],
        "small cells": ["--methods", FREE, "--limit", "20", "--backbone", str(folder / "tiny-bert")],
    }
    workloads["fine-tuning"] += ["finetune", "--steps", "60", "--batch-size", "16", "--seeds", "0,1"]
    workloads["fine-tuning"] += ["--limit", "20", "--backbone", str(folder / "tiny-bert")]
    found: dict[str, Any] = {name: {} for name in workloads}

    def timed(name: str, place: str, executor: Executor) -> None:
        out = folder / f"{name}-{place}".replace(" ", "-")
        plan = make_plan(
            options_of(run_parser().parse_args([*workloads[name], "--out", str(out), "--device", "cpu"]))
        )
        started = time.monotonic()
        outcome = execute(plan, Store(out), executor)
        assert not outcome.failures, outcome.failures
        found[name][place] = round(time.monotonic() - started, 2)
        found[name]["cells"] = outcome.finished

    for name in workloads:
        timed(name, "local", Executor(cpus=1))
    for workers in (1, 2):
        cluster = TwoRaylets(second=workers == 2)
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            for name in ("small cells", *workloads):  # the first run starts the workers, and its time is not kept
                shutil.rmtree(folder / f"{name}-ray-{workers}".replace(" ", "-"), ignore_errors=True)
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
            f"- {found['seconds']:.0f} s with two workers under fire, their restarts included; "
            f"{held['local']['seconds']:.0f} s in one process.",
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
        lines += [
            f"| {'' if one['seconds'] is None else one['seconds']} | {one['killed']} | {one['records']} |"
            for one in held["fire"]["kills"]
        ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Runs the parts asked for, keeps the others' last results, writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["local", "fire", "speed"], default=["local", "fire", "speed"])
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--work", type=Path, help="keep the runs here, so that fire can follow local in another call")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "scale")
    flags = parser.parse_args()
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
