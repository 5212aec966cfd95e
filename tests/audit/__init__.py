"""An audit of the profiler: every number of a report, recomputed without it."""
