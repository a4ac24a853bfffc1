//! The memory tier as its callers meet it.

mod bytes;
mod life;
mod policies;
mod support;
mod versions;
