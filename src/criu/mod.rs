//! CRIU's RPC, its options, its logs and errors.
