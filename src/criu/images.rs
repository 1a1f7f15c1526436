//! A bounded reader of the few CRIU images that we look into.
