//! Fills in the fields that hold other fields' text in small letters, where documents of before or of other
//! programs lack them. Of documents that differ by case alone one gets its text, and the others stay without:
//! nothing that is there becomes a fault.

use bson::{Bson, Document, doc};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::{
    document::{DELETED_AT, Documents},
    fault::{Fault, read},
};

/// Documents that are changed at the same time.
const AT_ONCE: usize = 16;
/// The most documents that one start looks at.
const DOCUMENTS_MAX: i64 = 100_000;

/// Fills in what is missing in a collection.
pub async fn fill(documents: &Documents, deadline: Instant) -> Result<(), Fault> {
    let schema = &documents.collection.schema;
    for field in &schema.fields {
        let Some(of) = field.folds else { continue };
        if schema.fields.iter().any(|other| other.name == of && other.encrypted) {
            continue;
        }
        let name = &field.name;
        let missing = doc! { name: Bson::Null, of: { "$type": "string" }, DELETED_AT: { "$exists": false } };
        let find = documents.handle.find(missing).projection(doc! { "_id": 1, of: 1 }).limit(DOCUMENTS_MAX);
        let cursor = read(deadline, find).await?;
        let found: Vec<Document> = read(deadline, cursor.try_collect()).await?;
        let one = |document: Document| async move {
            let (Some(id), Ok(text)) = (document.get("_id").cloned(), document.get_str(of)) else {
                return Ok(());
            };
            let this = doc! { "_id": id, of: text, name: Bson::Null };
            let set = doc! { "$set": { name: text.to_lowercase() } };
            match read(deadline, documents.handle.update_one(this, set)).await {
                Err(Fault::Taken(_)) => Ok(()),
                done => done.map(drop),
            }
        };
        stream::iter(found).map(one).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    }
    Ok(())
}
