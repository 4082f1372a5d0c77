"""What the benchmarks share: the machine in words, interleaved timing, peak memory, tables, and writing a page."""

import gc
import os
import platform
import resource
import statistics
import time
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
import transformers

from crossmask.utils.atomic_write import write_text

RESULTS = Path("runs/benchmarks")
Subject = TypeVar("Subject", bound=Hashable)  # what is measured
Result = TypeVar("Result")


class _Quick(Action):
    """`--quick`, which makes folders `quick` the parser's defaults: what was measured is kept."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, *_: Any) -> None:
        namespace.quick = True
        for name in ("output", "runs"):
            path = parser.get_default(name)
            if path is not None and getattr(namespace, name) == path:
                parser.set_defaults(**{name: path.parent / "quick" / path.name})
                setattr(namespace, name, parser.get_default(name))


def add_page_options(parser: ArgumentParser, page: str) -> None:
    """What every benchmark takes: `--quick`, and where its page goes."""
    parser.add_argument(
        "--quick", action=_Quick, nargs=0, default=False, help="tiny sizes, to see in seconds that it runs"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / f"{page}.md", help="where the page is written")


def add_run_options(parser: ArgumentParser, page: str, threads: int) -> None:
    """What every benchmark of a model takes: `--device` and `--threads` too."""
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=threads, help=f"of the processor ({threads})")
    add_page_options(parser, page)


def parse_options(parser: ArgumentParser, argv: Sequence[str] | None, **idle: Sequence[str]) -> Namespace:
    """The options of a benchmark.

    Args:
        idle: of a switch, such as `quick`, the options that it has values of its own for. They are refused beside it.
    """
    options = parser.parse_args(argv)
    for switch, names in idle.items():
        if getattr(options, switch):
            refuse_idle(parser, options, names, f"with --{switch.replace('_', '-')}, which has its own")
    return options


def refuse_idle(parser: ArgumentParser, options: Namespace, names: Sequence[str], why: str) -> None:
    """End the program where an option that nothing would read is not the default; `why` ends the message."""
    for name in names:
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} must be left out {why}")


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
    runs: Mapping[Subject, Callable[[int], object]], repeats: int, warm_up: int = 1, device: str = "cpu"
) -> dict[Subject, list[float]]:
    """Seconds of every subject, `repeats` each. They take turns, so that other load on the machine affects all alike.

    A run is called with the number of its turn; the first `warm_up` turns are not counted.
    """
    times: dict[Subject, list[float]] = {subject: [] for subject in runs}
    for turn in range(warm_up + repeats):
        for subject, run in runs.items():
            elapsed = seconds(partial(run, turn), device)
            if turn >= warm_up:
                times[subject].append(elapsed)
    return times


def medians(times: Mapping[Subject, Sequence[float]]) -> dict[Subject, float]:
    return {subject: statistics.median(values) for subject, values in times.items()}


def start_peak(device: str = "cpu") -> int:
    """Forget the peak of memory so far: from here on `peak` is that of what follows. Returns the bytes held now."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        gc.collect()
        if platform.system() == "Linux":  # others cannot forget it, so a rise above it is what is measured there
            Path("/proc/self/clear_refs").write_text("5")
    return peak(device)


def peak(device: str = "cpu") -> int:
    """Peak bytes since `start_peak`, or since the process began: of torch's allocations on a GPU, else resident."""
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def in_own_processes(
    function: Callable[..., Result], calls: Sequence[tuple], *, killed: Any = BrokenProcessPool
) -> list[Result]:
    """`function(*call)` for every call, one after the other, each in a process of its own.

    The processes are forked from one that has imported what all benchmarks do and done nothing else. So none inherits
    this process's memory, which would hide a lower peak, and none waits for the imports.

    Args:
        killed: the result of a call that needs more memory than there is, for which its process is killed, or which
            the GPU refuses; by default that is raised.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.baselines"])  # by the first call in this process, for all
    results = []
    for call in calls:
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            try:
                results.append(pool.submit(function, *call).result())
            except (BrokenProcessPool, torch.OutOfMemoryError):
                if killed is BrokenProcessPool:
                    raise
                results.append(killed)
    return results


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], words: int = 1) -> str:
    """A Markdown table; all columns after the first `words` are aligned to the right."""
    lines = [header, [*["---"] * words, *["---:"] * (len(header) - words)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def growth_table(
    label: str, sizes: Sequence[int], titles: Mapping[Hashable, str], times: Mapping[tuple[Hashable, int], float]
) -> str:
    """Milliseconds of every subject at every size, and in brackets the ratio to the size before.

    Args:
        label: of the column of sizes.
        titles: of the columns, by subject.
        times: seconds, by subject and size.
    """
    rows = []
    for index, size in enumerate(sizes):
        cells = []
        for subject in titles:
            time_here = times[subject, size]
            growth = f" (x{time_here / times[subject, sizes[index - 1]]:.2f})" if index else ""
            cells.append(f"{time_here * 1e3:,.0f} ms{growth}")
        rows.append([f"{size:,}", *cells])
    return table([label, *titles.values()], rows)


def publish(page: str, path: Path) -> None:
    """Print a page, and write it to a file."""
    print(page, flush=True)
    write_text(path, page.rstrip() + "\n")
