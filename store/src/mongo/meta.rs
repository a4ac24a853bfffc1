//! `flyweight_meta`: what a database says of itself, a document each.

use std::collections::BTreeSet;

use bson::{Document, doc};
use mongodb::{Collection as Handle, Database};
use tokio::time::Instant;

use super::{StoreError, fault::Fault, fault::read};
use crate::identity::{Identity, Keys};
use model::{change::Collection, seal::Sealer};

const META: &str = "flyweight_meta";
const IDENTITY: &str = "identity";
const CONTENT: &str = "content";
/// What the names of the store's own collections start with.
const OWN: &str = "flyweight_";

/// The identity of the database, which gets one where it has none.
pub async fn identity(database: &Database, deadline: Instant) -> Result<Identity, StoreError> {
    let meta: Handle<Document> = database.collection(META);
    if let Some(kept) = content(&meta, IDENTITY, deadline).await? {
        return Identity::parse(&kept);
    }
    let names = read(deadline, database.list_collection_names()).await?;
    let bare = names.iter().any(|name| name.starts_with(OWN) && name != META);
    let made = doc! { "_id": IDENTITY, CONTENT: Identity::new(bare).to_text() };
    match read(deadline, meta.insert_one(made)).await {
        // whoever was first
        Ok(_) | Err(Fault::Taken(_)) => {}
        Err(fault) => return Err(fault.into()),
    }
    Identity::parse(&content(&meta, IDENTITY, deadline).await?.unwrap_or_default())
}

/// Checks that these keys open what the collection holds, and notes them.
///
/// # Errors
/// `Unsupported` where they do not.
pub async fn check_keys(
    database: &Database,
    collection: &Collection,
    sealer: &dyn Sealer,
    deadline: Instant,
) -> Result<(), StoreError> {
    let sealed: Vec<&str> = collection
        .schema
        .fields
        .iter()
        .filter(|field| field.encrypted)
        .map(|field| field.name.as_str())
        .collect();
    if sealed.is_empty() {
        return Ok(());
    }
    let (meta, name): (Handle<Document>, _) =
        (database.collection(META), format!("keys:{}", collection.name));
    let noted = content(&meta, &name, deadline).await?;
    let (keys, mut found) = (Keys::new(&collection.name, noted.as_deref(), sealer), BTreeSet::new());
    let documents: Handle<Document> = database.collection(&collection.name);
    for form in keys.wanted(sealer) {
        for field in &sealed {
            // base64 has a plus
            let sealed = doc! { *field: { "$regex": format!("^{}", form.replace('+', r"\+")) } };
            let document = read(deadline, documents.find_one(sealed)).await?;
            let value = document.as_ref().and_then(|document| document.get_str(*field).ok());
            found.extend(value.and_then(|value| sealer.key_of(value)));
        }
    }
    let Some(note) = keys.settle(found)? else { return Ok(()) };
    let update = meta.update_one(doc! { "_id": &name }, doc! { "$set": { CONTENT: note } }).upsert(true);
    match read(deadline, update).await {
        // another replica notes the same
        Ok(_) | Err(Fault::Taken(_)) => Ok(()),
        Err(fault) => Err(fault.into()),
    }
}

async fn content(
    meta: &Handle<Document>,
    name: &str,
    deadline: Instant,
) -> Result<Option<String>, StoreError> {
    let found = read(deadline, meta.find_one(doc! { "_id": name })).await?;
    Ok(found.and_then(|found| found.get_str(CONTENT).ok().map(str::to_owned)))
}
