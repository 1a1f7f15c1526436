//! The containerd shim: ttrpc Task service.
