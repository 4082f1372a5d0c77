"""All benchmarks, one after the other: `python -m benchmarks`."""

from benchmarks import training

if __name__ == "__main__":
    training.main([])
