//! Containers made by libcontainer in a short-lived process of its own.
