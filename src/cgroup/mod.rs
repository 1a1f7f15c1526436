//! Control groups v1 and v2: freezer, statistics, limits, out-of-memory events.
