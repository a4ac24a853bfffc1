//! What the steps of a reconcile share: what was observed, judged, planned and done. Only data and questions
//! about them: nothing here uses another module of the operator.

pub mod applied;
pub mod cause;
pub mod child;
pub mod error;
pub mod notice;
pub mod observed;
pub mod plan;
pub mod report;
pub mod update;
pub mod validated;
