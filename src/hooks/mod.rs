//! What runs around freeze and restore.
