//! The indexes of a collection, and the form of its keys.

use bson::{Bson, Document, doc};
use mongodb::{IndexModel, options::IndexOptions};

use crate::{
    StoreError,
    confined::{PoolFault, PoolReason},
};
use model::change::Collection;

use super::{
    document::{DELETED_AT, KeyForm, PENDING_AT, unique_index},
    values::int_of,
};

/// The type of a declared collection's `_id`, as one of its documents has it.
pub(super) fn key_form(sample: Option<Document>) -> Result<KeyForm, StoreError> {
    match sample.as_ref().and_then(|sample| sample.get("_id")) {
        None | Some(Bson::String(_)) => Ok(KeyForm::Text),
        Some(Bson::ObjectId(_)) => Ok(KeyForm::ObjectId),
        Some(bson) if int_of(bson).is_some() => Ok(KeyForm::Int),
        Some(other) => {
            let why = format!("an _id that is a {:?} cannot be a key", other.element_type());
            Err(StoreError::Unprepared(PoolFault::new(PoolReason::ColumnUnfit, why)))
        }
    }
}

/// Unique values, searched fields, and what the store looks for: waiting events and tombstones. Sparse:
/// documents without the field take no part, so a value that is missing is not taken.
pub(super) fn indexes(collection: &Collection) -> Vec<IndexModel> {
    let index = |name: String, field: &str, unique: bool, sparse: bool| {
        let options = IndexOptions::builder().name(name).unique(unique).sparse(sparse).build();
        IndexModel::builder().keys(doc! { field: 1 }).options(options).build()
    };
    let own = [PENDING_AT, DELETED_AT].map(|field| index(format!("flyweight{field}"), field, false, true));
    let fields =
        collection.schema.fields.iter().filter(|field| !field.encrypted).filter_map(|field| {
            match (field.unique, field.indexed) {
                (true, _) => Some(index(unique_index(field), &field.name, true, true)),
                (false, true) => Some(index(format!("{}_index", field.name), &field.name, false, false)),
                (false, false) => None,
            }
        });
    own.into_iter().chain(fields).collect()
}
