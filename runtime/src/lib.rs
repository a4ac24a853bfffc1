//! What every process that serves is made of: its background tasks, its way down, and whose the names are
//! that it uses on shared servers.

pub mod owner;
pub mod shutdown;
pub mod supervisor;
