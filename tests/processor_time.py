"""How long a call takes, in a unit that a slow or busy machine changes as well."""

import gc
import time


def loop() -> None:
    """Plain work in Python, some 2 ms of it, the unit that times are in."""
    held, total = {}, 0
    for number in range(20_000):
        held[number & 255] = (number, total)
        total += len(held)


def loops(call, *arguments, before=lambda: None, most: float = 0.0) -> float:
    """Processor time of a call in times of `loop`, each the best of three, taken in turns.

    As in `timeit`, garbage is not collected meanwhile: what the tests before left would be looked through.

    Args:
        before: called before each. most: a call that takes less than a quarter of it is not repeated.
    """
    times = {loop: [], call: []}
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(3):
            for timed, given in ((loop, ()), (call, arguments)):
                before()
                start = time.process_time()
                timed(*given)
                times[timed].append(time.process_time() - start)
            if times[call][-1] < most / 4 * times[loop][-1]:
                break
    finally:
        if enabled:
            gc.enable()
    return min(times[call]) / min(times[loop])
