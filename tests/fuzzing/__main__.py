"""Runs random programs: ``python -m tests.fuzzing --programs 10000 --seed 7 --jobs 2``, or one with ``--only SEED``."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.fuzzing.generator import write
from tests.fuzzing.runner import Result, examine
from tests.fuzzing.shrink import shrink


def run(seeds):
    """Return the results of some programs."""
    results = []
    for seed in seeds:
        program = None
        try:
            program = write(seed)
            results.append((program.free, examine(program)))
        except Exception:
            broken = Result(seed)
            broken.difference = "the fuzzer itself: " + traceback.format_exc().strip().replace("\n", "\n    ")
            results.append((False, broken))
    return results


def main(argv=None):
    """Run programs, and print counts and each failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="programs have the seeds from SEED * 1,000,000 on")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", type=int, help="run and print the program of this seed alone")
    parser.add_argument("--most", type=int, default=20, help="how many failures to print whole")
    parser.add_argument(
        "--shrink", action="store_true", help="leave out of each failing program what it does not need to fail"
    )
    options = parser.parse_args(argv)
    first = options.seed * 1_000_000
    seeds = range(first, first + options.programs) if options.only is None else [options.only]
    chunks = [seeds[k : k + 25] for k in range(0, len(seeds), 25)]
    if options.jobs > 1:
        with ProcessPoolExecutor(options.jobs) as pool:
            made = [row for rows in pool.map(run, chunks) for row in rows]
    else:
        made = [row for chunk in chunks for row in run(chunk)]
    return report(made, options)


def report(made, options):
    """Print counts, and each failure with its program; return 1 if there is any."""
    results = [result for _, result in made]
    wrong = [r for r in results if r.difference or r.faults]
    free = [r for is_free, r in made if is_free and r.expected]
    slow = [r for r in free if r.missed]
    for result in [*wrong, *slow][: options.most] if options.only is None else results:
        program, difference = write(result.seed), result.difference or "none"
        if options.shrink:
            program, difference = shrink(program)
        print(f"\n{program}\ndifference: {difference}")
        for name in ("faults", "reasons"):
            print(*(f"{name}: {line}" for line in dict.fromkeys(getattr(result, name))), sep="\n")
    share = 100 * (1 - len(slow) / len(free)) if free else 100.0
    print(f"\nprograms: {len(results)}, {sum(r.trained for r in results)} of them in a Trainer too")
    print(f"steps: {sum(r.steps for r in results)}, {sum(r.failed for r in results)} of them raised")
    print(f"differences: {sum(bool(r.difference) for r in results)}")
    print(f'"fault of microfw": {sum(bool(r.faults) for r in results)}')
    print(
        f"replayed from the third step on: {share:.1f} % of {len(free)} programs without shapes, branches or draws of their own"
    )
    print(f"losses finite: {sum(r.finite for r in results)}, parameters moved: {sum(r.moved for r in results)}")
    for name, count in Counter(line for r in slow for line in dict.fromkeys(r.reasons)).most_common(12):
        print(f"  {count} not replayed: {name}")
    if wrong:
        print("seeds that failed:", *[r.seed for r in wrong][:60])
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
