//! The `world` command: one file per verb.
