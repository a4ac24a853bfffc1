//! What a database says of itself: one identity for everybody, and one ring of keys for each table.

use super::*;
use crate::encryption::FieldSealer;
use testing::Folder;

/// 32 bytes each, in base64.
const KEYS: [&str; 2] =
    ["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="];

/// Seals under these keys, the newest first.
fn ring(keys: &[&str]) -> Arc<dyn Sealer> {
    let folder = Folder::new();
    let path = folder.path().join("key");
    std::fs::write(&path, keys.join("\n")).unwrap();
    Arc::new(FieldSealer::from_file(&path).unwrap())
}

pub async fn every_replica_is_told_the_same_identity(target: &Target) {
    let (first, second) =
        tokio::join!(target.store.identity(), async { target.again().await.store.identity().await });
    let first = first.unwrap();
    assert_eq!(first, second.unwrap());
    assert!(first.id.len() == 12 && !first.bare, "{first:?}: it had its identity before its tables");
}

pub async fn another_key_is_refused_where_values_are_encrypted(target: &Target) {
    let all = [target.users.clone(), target.things.clone()];
    let mut row = titled("x");
    row.0[field::SECRET] = text("hidden");
    let with = async |keys: &[&str]| target.reopened(ring(keys)).await.0;
    let [one, two] = KEYS;
    // values of before anything was noted tell their key themselves
    let origin = Origin::of("tester");
    let work = UnitOfWork::new(vec![create(&target.things, "a", row)], &origin);
    with(&[one]).await.commit(work).await.unwrap();
    let refused = async |keys: &[&str]| with(keys).await.prepare(&all).await.unwrap_err().to_string();
    assert!(refused(&[two]).await.contains("EncryptionKeyMismatch: table things"));
    with(&[one]).await.prepare(&all).await.unwrap();
    // and from then on the note does, with and without values
    assert!(refused(&[two]).await.contains("EncryptionKeyMismatch"));
    let both = with(&[two, one]).await;
    both.prepare(&all).await.unwrap();
    let read = both.read(&target.things, &["a".parse().unwrap()]).await.unwrap().remove(0);
    assert_eq!(found(read).values.0[field::SECRET], text("hidden"));
    with(&[two]).await.prepare(&all).await.unwrap();
}
