"""What the benchmarks share: the machine in words, interleaved timing, peak memory, tables, pages written whole."""

import os
import platform
import resource
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
import transformers

from crossmask.utils.atomic_write import write_text

RESULTS = Path("runs/benchmarks")
Side = TypeVar("Side", bound=Hashable)
Result = TypeVar("Result")


def add_run_options(parser: ArgumentParser, page: str, threads: int) -> None:
    """What every script that trains takes: `--device`, `--threads`, `--quick` and where its page goes."""
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--quick", action="store_true", help="in seconds, to see that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{page}.md")


def machine(device: str = "cpu") -> str:
    """Processor, cores, threads, vector and matrix extensions, memory, how busy it is, and versions."""
    cores = f"{psutil.cpu_count(logical=False)} cores, {os.cpu_count()} logical"
    extensions = " ".join(vector_flags()) or "no AVX or AMX"
    ram = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    where = [f"{processor()}, {cores}; {extensions}; {ram}; {platform.system()} {platform.machine()}"]
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        where.append(f"{torch.cuda.get_device_name()}, {memory:.0f} GiB; CUDA {torch.version.cuda}")
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' * (count > 1)}, load of the last minute {os.getloadavg()[0]:.1f}"
    versions = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    return "; ".join([*where, threads, versions])


def _cpuinfo(name: str) -> str:
    """A field of the first processor, on Linux."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == name), "")


def processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def vector_flags() -> list[str]:
    """The AVX and AMX extensions that the processor names, or what torch found, where there is no such list."""
    flags = _cpuinfo("flags").split()
    return [flag for flag in flags if flag.startswith(("avx", "amx"))] or [torch.backends.cpu.get_cpu_capability()]


def clock(device: str = "cpu") -> tuple[Callable[[], float], str]:
    """What to time by, and its name: CPU seconds of one thread, which other work disturbs less, else wall time."""
    if device == "cpu" and torch.get_num_threads() == 1:
        return time.process_time, "CPU seconds"
    return time.perf_counter, "wall time"


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    """How long one run takes by `clock`; a GPU is waited for."""
    now, _ = clock(device)
    if device == "cuda":
        torch.cuda.synchronize()
    start = now()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return now() - start


def interleave(
    runs: Mapping[Side, Callable[[int], object]], repeats: int, warm_up: int = 1, device: str = "cpu"
) -> dict[Side, list[float]]:
    """Seconds of every side, `repeats` each: the sides take turns, so that what else the machine does falls on all.

    A run is called with the number of its turn; the first `warm_up` turns are not counted.
    """
    times: dict[Side, list[float]] = {side: [] for side in runs}
    for turn in range(warm_up + repeats):
        for side, run in runs.items():
            elapsed = seconds(partial(run, turn), device)
            if turn >= warm_up:
                times[side].append(elapsed)
    return times


def medians(times: Mapping[Side, Sequence[float]]) -> dict[Side, float]:
    return {side: statistics.median(values) for side, values in times.items()}


def peak(device: str = "cpu") -> int:
    """Bytes at most so far: of torch's allocations on a GPU, else resident, since the process began."""
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def in_own_processes(function: Callable[..., Result], calls: Sequence[tuple], module: str) -> list[Result]:
    """`function(*call)` for every call, one after the other, each in a process of its own.

    They are forked from one that has imported `module` and done nothing else: none inherits this process's memory,
    which would hide a lower peak, and none waits for the imports.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([module])
    with ProcessPoolExecutor(max_workers=1, mp_context=context, max_tasks_per_child=1) as pool:
        return [pool.submit(function, *call).result() for call in calls]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], words: int = 1) -> str:
    """A Markdown table; all columns after the first `words` are aligned to the right."""
    lines = [header, [*["---"] * words, *["---:"] * (len(header) - words)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def growth_table(
    what: str, sizes: Sequence[int], titles: Mapping[Hashable, str], found: Mapping[tuple[Hashable, int], float]
) -> str:
    """Milliseconds of every subject at every size, and in brackets how many times those of the size before."""
    rows = []
    for index, size in enumerate(sizes):
        cells = []
        for subject in titles:
            now = found[subject, size]
            growth = f" (x{now / found[subject, sizes[index - 1]]:.2f})" if index else ""
            cells.append(f"{now * 1e3:,.0f} ms{growth}")
        rows.append([f"{size:,}", *cells])
    return table([what, *titles.values()], rows)


def publish(page: str, path: Path) -> None:
    """Print a page, and write it whole."""
    print(page, flush=True)
    write_text(path, page.rstrip() + "\n")
