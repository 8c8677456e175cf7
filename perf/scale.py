#!/usr/bin/env python3
"""What the walk would need on a machine and a heap that nobody here has: a model fed by measured costs.

    perf/scale.py                       64 cores, 500 GB
    perf/scale.py --cores 16 --gb 107

Measured costs (two cores, mixed heap, 22.6 million objects, 1.6 GB live; see perf/runs and perf/notes/0003) stand below. The model adds
up what each resource must do and takes the slowest; it knows nothing of memory channels shared by many cores, so it is a lower bound.
"""

import argparse

OBJECTS_PER_GB = 22.64e6 / 1.6  # of live heap
SPANS_PER_GB = 1.22e5
ELEMENTS_PER_OBJECT = 0.94  # 324 waves of 2^16 for 22.6 million objects
LEVELS = 114
WALK_NS = 65  # of one core, per object
CLAIM = 0.22  # share of it in claims, which one shard's owner does alone
KERNEL = 0.15  # share of it in page faults on the mapped core
SERIAL_US = 35  # per wave: choosing slices, resolving keys, regrouping
BARRIER_US = 20  # per wave, with many threads asleep
UNIT = 1024  # elements a thread takes at once
SPAN_US = 0.17  # of one core, to read a span
SHARDS = 256
POINTER_SHARE = 0.68  # of the core's bytes are in pages with pointers
LIVE_SHARE = 1.1  # stored core per live byte, pages never touched left out


def walk(cores: int, objects: float, wave: float, spread: float) -> dict[str, float]:
    """Seconds that each resource needs.

    * spread: shards over which the candidates of a wave are spread evenly.
    """
    cpu = objects * WALK_NS * 1e-9
    waves = max(objects * ELEMENTS_PER_OBJECT / wave, LEVELS)
    # A wave has so many units; what does not divide evenly waits.
    rounds = -(-(wave / UNIT) // cores) * cores / (wave / UNIT)
    return {
        "all cores": cpu * (1 - CLAIM) / cores * rounds + cpu * CLAIM / min(cores, spread),
        "claims of the fullest shard": cpu * CLAIM / spread,
        "between waves": waves * (SERIAL_US + BARRIER_US) * 1e-6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=64)
    parser.add_argument("--gb", type=float, default=500, help="live heap")
    args = parser.parse_args()
    objects = OBJECTS_PER_GB * args.gb
    cpu = objects * WALK_NS * 1e-9
    print(f"{args.gb:.0f} GB, {objects / 1e9:.1f} billion objects, {args.cores} cores\n")
    print("| waves of | a wave's candidates lie in | between waves s | fullest shard s | walk s | busy cores |")
    print("|---|---|---|---|---|---|")
    for log in (16, 19, 22):
        for spread, where in ((1, "1 shard"), (8, "8 shards or stripes"), (64, "64")):
            parts = walk(args.cores, objects, 2.0**log, spread)
            # Claims run beside the next wave's expansion, the rest between them.
            beside = max(parts["claims of the fullest shard"], cpu * (1 - CLAIM) / args.cores + cpu * CLAIM / args.cores)
            starved = parts["all cores"] - cpu * (1 - CLAIM) / args.cores - cpu * CLAIM / min(args.cores, spread)
            total = beside + starved + parts["between waves"]
            print(
                f"| 2^{log} | {where} | {parts['between waves']:.1f} | {parts['claims of the fullest shard']:.1f} "
                f"| {total:.1f} | {cpu / total:.0f} |"
            )
    spans = SPANS_PER_GB * args.gb
    stored = args.gb * LIVE_SHARE
    print(f"\nreading {spans / 1e6:.0f} million spans: {spans * SPAN_US * 1e-6 / args.cores:.1f} s")
    memory = spans * 112 + spans * 4 + objects * 1.06 / 8 * 2 + objects * 0.05 * 4 * 2
    print(f"private memory: {memory / 1e9:.1f} GB, {memory / args.gb / 1e7:.1f} % of the live heap")
    print(f"page faults: {cpu * KERNEL:.0f} core-seconds")
    for rate in (1, 3, 10):
        print(f"pages with pointers from storage at {rate} GB/s: {stored * POINTER_SHARE / rate:.0f} s")


if __name__ == "__main__":
    main()
