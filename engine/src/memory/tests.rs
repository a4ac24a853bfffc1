//! The memory tier as its callers meet it.

mod bytes;
mod life;
#[path = "../../../dataplane/benches/engine/models.rs"]
mod models;
mod policies;
mod shadows;
mod support;
mod versions;
