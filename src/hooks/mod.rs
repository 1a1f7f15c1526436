//! What runs around freeze and restore.
//!
//! Today: the OCI lifecycle hooks of a container that is brought back
//! ([`oci`]); libcontainer runs those of one that is made anew.
//!
//! Hooks of our own (quiesce an application before the freeze, notify it after
//! the thaw or the restore) belong here too. Their places in the spine are
//! `world::checkpoint::checkpoint`, before `Plan::freeze` and after the thaw,
//! and `world::restore`, beside the OCI hooks.

pub mod oci;
