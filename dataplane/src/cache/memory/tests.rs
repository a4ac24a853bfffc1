//! The memory tier as its callers meet it.
