//! The keys of the security folder: what encrypts fields and what signs calls, taken over when they change.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, bail};
use crds::{resolve::is_address, settings::SecuritySettings};

use super::{
    backends::Place,
    rotation::{Folder, Mounted},
};
use crate::{
    gateway::trust::Trust,
    http::guard::Guard,
    security::tls::Identity,
    service::{notify::Address, payment::http::SigningKey},
};
use model::seal::Sealer;
use store::encryption::FieldSealer;

/// The kind of these folders.
const KIND: &str = "security";

/// Keys in use.
pub struct Keys {
    /// Encrypts fields.
    pub sealer: Arc<dyn Sealer>,
    /// Signs calls of the payment provider.
    pub signing: SigningKey,
    /// Where messages to customers are posted, where that is a secret.
    pub webhook: Address,
    /// Where the payment provider is, where that is a secret.
    pub provider: Address,
    /// The Secrets that they come from.
    pub mounted: Vec<Mounted>,
}

impl Keys {
    /// Reads the keys that the settings name.
    ///
    /// # Errors
    /// A key is not there or cannot be used.
    pub fn read(dir: Option<&Path>, place: &Place, settings: &SecuritySettings) -> anyhow::Result<Self> {
        let mut mounted = Vec::new();
        let sealer = sealer(dir, place, settings.encryption_secret.as_deref(), &mut mounted)?;
        let (signing, provider) = (SigningKey::default(), Address::default());
        if settings.payments_secret.is_some() {
            let dir = dir.context("the payment provider has a Secret: give its folder with --security")?;
            let (folder, path) = (Folder::of(KIND, dir, "payments"), dir.join("payments"));
            let (key, url) = (signing.clone(), provider.clone());
            let take = move || -> anyhow::Result<()> {
                let (new_key, new_url) = payments(&path)?;
                key.store(new_key.map(Arc::new));
                url.store(new_url.map(Arc::new));
                Ok(())
            };
            take()?;
            mounted.push(
                folder.taken_by(move || std::future::ready(take().map_err(|error| format!("{error:#}")))),
            );
        }
        let webhook = Address::default();
        if settings.notifications_secret.is_some() {
            let dir = dir.context("the webhook's address is a secret: give its folder with --security")?;
            let (folder, path) = (Folder::of(KIND, dir, "notifications"), dir.join("notifications/url"));
            webhook.store(Some(Arc::new(address(&path)?)));
            let used = webhook.clone();
            mounted.push(folder.taken_by(move || {
                let new = address(&path).map_err(|error| format!("{error:#}"));
                std::future::ready(new.map(|new| used.store(Some(Arc::new(new)))))
            }));
        }
        Ok(Self { sealer, signing, webhook, provider, mounted })
    }
}

/// What the Secret of the payment provider has: the key that calls are signed with, its address, or both.
fn payments(dir: &Path) -> anyhow::Result<(Option<Vec<u8>>, Option<String>)> {
    let (key, url) = (dir.join("key"), dir.join("url"));
    let url = url.exists().then(|| address(&url)).transpose()?;
    if url.is_some() && !key.exists() {
        return Ok((None, url));
    }
    let key = fs::read(&key).with_context(|| format!("{} cannot be read", key.display()))?;
    Ok((Some(key.trim_ascii().to_vec()), url))
}

/// An address that is a secret: it is in no message.
fn address(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let address = text.trim();
    if !is_address(address) {
        bail!("{} must start with https:// or http://", path.display());
    }
    Ok(address.to_owned())
}

/// The keys that tokens are verified by.
pub fn tokens(dir: Option<&Path>, settings: &SecuritySettings) -> Option<Folder> {
    settings.jwt_secret.as_ref().and(dir).map(|dir| Folder::of(KIND, dir, "jwt"))
}

/// The guard takes them over.
pub fn follow_tokens(folder: Folder, dir: &Path, guard: &Arc<Guard>) -> Mounted {
    let (dir, guard) = (dir.to_owned(), guard.clone());
    folder.taken_by(move || std::future::ready(guard.reload_keys(&dir).map_err(|error| error.to_string())))
}

/// The certificate of the API, and the Secret that it comes from; none where the API is served over plain
/// HTTP. The gateway's `trust` in pods follows it.
///
/// # Errors
/// It is not there or cannot be used.
pub fn identity(
    dir: Option<&Path>,
    settings: &SecuritySettings,
    trust: Option<&Arc<Trust>>,
) -> anyhow::Result<Option<(Arc<Identity>, Mounted)>> {
    let Some(secret) = &settings.tls_secret else { return Ok(None) };
    let dir = dir.with_context(|| {
        format!("the API is served by the Secret {secret}: give its folder with --security")
    })?;
    let (folder, dir) = (Folder::of(KIND, dir, "tls"), dir.join("tls"));
    let (identity, trust) = (Identity::from_dir(&dir)?, trust.cloned());
    let trusts = move |dir: &Path| trust.as_ref().map_or(Ok(()), |trust| trust.reload(dir));
    trusts(&dir)?;
    let own = identity.clone();
    let take = move || trusts(&dir).and_then(|()| own.reload(&dir)).map_err(|error| error.to_string());
    Ok(Some((identity, folder.taken_by(move || std::future::ready(take())))))
}

/// The key of encrypted fields: the mounted one, or one that is made in the data folder.
fn sealer(
    dir: Option<&Path>,
    place: &Place,
    secret: Option<&str>,
    mounted: &mut Vec<Mounted>,
) -> anyhow::Result<Arc<dyn Sealer>> {
    Ok(Arc::new(match (dir, place, secret) {
        (Some(dir), _, Some(_)) => {
            let (folder, path) = (Folder::of(KIND, dir, "encryption"), dir.join("encryption/key"));
            let sealer = Arc::new(FieldSealer::from_file(&path)?);
            let own = sealer.clone();
            mounted.push(
                folder.taken_by(move || {
                    std::future::ready(own.reload(&path).map_err(|error| error.to_string()))
                }),
            );
            return Ok(sealer);
        }
        (None, Place::Backends(_), Some(secret)) => {
            bail!("fields are encrypted under the Secret {secret}: give its folder with --security")
        }
        (_, Place::Embedded(dir), _) => FieldSealer::from_file_or_new(&dir.join("encryption.key"))?,
        (_, Place::Backends(_), None) => FieldSealer::ephemeral(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_webhook_comes_from_its_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        assert!(address(&path).unwrap_err().to_string().contains("cannot be read"));
        fs::write(&path, "https://hooks.example.com/t0ken\n").unwrap();
        assert_eq!(address(&path).unwrap(), "https://hooks.example.com/t0ken");
        fs::write(&path, "hooks.example.com/t0ken").unwrap();
        let told = format!("{:#}", address(&path).unwrap_err());
        assert!(told.contains("must start with https://") && !told.contains("t0ken"), "{told}");
    }

    #[test]
    fn the_secret_of_the_payment_provider_has_a_key_an_address_or_both() {
        let dir = tempfile::tempdir().unwrap();
        let read = || payments(dir.path());
        assert!(read().unwrap_err().to_string().contains("cannot be read"), "neither is there");
        fs::write(dir.path().join("url"), "https://user:t0ken@pay.example.com/v1\n").unwrap();
        assert_eq!(read().unwrap(), (None, Some("https://user:t0ken@pay.example.com/v1".to_owned())));
        fs::write(dir.path().join("key"), "k\n").unwrap();
        assert!(matches!(read().unwrap(), (Some(key), Some(_)) if key == b"k"));
        fs::write(dir.path().join("url"), "user:t0ken@pay.example.com").unwrap();
        assert!(!format!("{:#}", read().unwrap_err()).contains("t0ken"));
    }
}
