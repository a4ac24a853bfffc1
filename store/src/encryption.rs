//! Encryption of fields: AES-256-GCM-SIV (RFC 8452), which stays safe should a nonce ever repeat.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aes_gcm_siv::{
    Aes256GcmSiv, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use sha2::{Digest, Sha256};

use model::seal::{SealError, Sealer};

/// What a sealed value starts with: the form's version.
const PREFIX: &str = "fwe1:";
const ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;

/// How long a new key only opens before it seals: by then every replica has it, and can read what the others
/// write.
const SPREAD: Duration = Duration::from_secs(120);

/// Seals under the first key and opens under any, so that a key can be replaced while old values remain.
pub struct FieldSealer {
    ring: ArcSwap<Ring>,
}

struct Ring {
    /// The newest first.
    keys: Vec<Arc<SealingKey>>,
    /// The place of the key that seals until the first one does, and the moment when it does.
    until: Option<(usize, Instant)>,
}

struct SealingKey {
    id: [u8; ID_BYTES],
    cipher: Aes256GcmSiv,
}

/// The keys cannot be used. No message holds a part of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A line is no key.
    #[error(
        "{path}: line {line} is not 32 bytes in base64 (make one with: head -c 32 /dev/urandom | base64)"
    )]
    Form {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// The key that values are sealed under is gone.
    #[error(
        "{path}: the key that values are sealed under is gone: put a new key on the first line and leave the others below it"
    )]
    Gone {
        /// The file.
        path: String,
    },
}

impl FieldSealer {
    /// Reads the keys from a file: one in base64 a line, the newest first.
    ///
    /// # Errors
    /// The file cannot be read, has no key, or a line is no key.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        Ok(Self::new(keys(path)?))
    }

    /// A process that starts just after the keys changed has the new one before others do: it waits as they
    /// would.
    fn new(keys: Vec<Arc<SealingKey>>) -> Self {
        let until = (keys.len() > 1).then(|| (1, Instant::now() + SPREAD));
        Self { ring: ArcSwap::from_pointee(Ring { keys, until }) }
    }

    /// Takes the keys that are in the file now. A new first key opens at once, and seals when every replica
    /// has had the time to take it.
    ///
    /// # Errors
    /// As for [`Self::from_file`], and where the key that seals is no longer there; nothing changes then.
    pub fn reload(&self, path: &Path) -> Result<(), KeyError> {
        self.take(keys(path)?, Instant::now())
            .ok_or_else(|| KeyError::Gone { path: path.display().to_string() })
    }

    fn take(&self, keys: Vec<Arc<SealingKey>>, now: Instant) -> Option<()> {
        let former = self.ring.load();
        let sealing = former.sealing(now).id;
        let place = keys.iter().position(|key| key.id == sealing)?;
        // a second reload within the time does not make it longer
        let moment = match former.until {
            Some((_, moment)) if moment > now && former.keys[0].id == keys[0].id => moment,
            _ => now + SPREAD,
        };
        self.ring.store(Arc::new(Ring { keys, until: (place > 0).then_some((place, moment)) }));
        Some(())
    }

    /// Seals under a key that goes with the process: for services without encrypted fields, which never seal
    /// anything that lasts.
    pub fn ephemeral() -> Self {
        let bytes: [u8; 32] = rand::random();
        Self::new(SealingKey::new(&bytes).map(Arc::new).into_iter().collect())
    }

    /// Reads the keys of a file, which is made with a new key, for its owner alone, when it is not there.
    ///
    /// # Errors
    /// As for [`Self::from_file`].
    pub fn from_file_or_new(path: &Path) -> Result<Self, KeyError> {
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let key: [u8; 32] = rand::random();
                file.write_all(format!("{}\n", BASE64.encode(key)).as_bytes())
                    .and_then(|()| file.sync_all())
                    .map_err(|error| file_error(path, error))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file_error(path, error)),
        }
        Self::from_file(path)
    }
}

impl Ring {
    fn sealing(&self, now: Instant) -> &SealingKey {
        let place = self.until.filter(|(_, moment)| now < *moment).map_or(0, |(place, _)| place);
        &self.keys[place]
    }
}

impl SealingKey {
    fn parse(line: &str) -> Option<Self> {
        Self::new(&BASE64.decode(line).ok()?)
    }

    fn new(bytes: &[u8]) -> Option<Self> {
        let cipher = Aes256GcmSiv::new_from_slice(bytes).ok()?;
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&Sha256::digest(bytes)[..ID_BYTES]);
        Some(Self { id, cipher })
    }
}

impl Sealer for FieldSealer {
    /// The one that seals first.
    fn key_ids(&self) -> Vec<String> {
        let ring = self.ring.load();
        let sealing = ring.sealing(Instant::now()).id;
        let others = ring.keys.iter().map(|key| key.id).filter(|id| *id != sealing);
        std::iter::once(sealing).chain(others).map(id_text).collect()
    }

    fn key_of(&self, sealed: &str) -> Option<String> {
        let bytes = BASE64.decode(sealed.strip_prefix(PREFIX)?).ok()?;
        Some(id_text(*bytes.first_chunk::<ID_BYTES>()?))
    }

    fn form(&self) -> &'static str {
        PREFIX
    }

    /// Three bytes of the id are four characters; the fourth shares one with what follows.
    fn own_forms(&self) -> Vec<String> {
        self.ring.load().keys.iter().map(|key| format!("{PREFIX}{}", BASE64.encode(&key.id[..3]))).collect()
    }

    fn seal(&self, plain: &[u8], context: &str) -> String {
        let ring = self.ring.load();
        let SealingKey { id, cipher } = ring.sealing(Instant::now());
        let nonce: [u8; NONCE_BYTES] = rand::random();
        // Encryption fails only for values of more than 64 GiB, which no request can carry.
        let sealed = cipher
            .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: context.as_bytes() })
            .unwrap_or_default();
        let mut bytes = Vec::with_capacity(ID_BYTES + NONCE_BYTES + sealed.len());
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        format!("{PREFIX}{}", BASE64.encode(bytes))
    }

    fn open(&self, sealed: &str, context: &str) -> Result<Vec<u8>, SealError> {
        let bytes = sealed.strip_prefix(PREFIX).and_then(|text| BASE64.decode(text).ok()).ok_or(SealError)?;
        let (id, rest) = bytes.split_at_checked(ID_BYTES).ok_or(SealError)?;
        let (nonce, text) = rest.split_at_checked(NONCE_BYTES).ok_or(SealError)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| SealError)?;
        let ring = self.ring.load();
        let key = ring.keys.iter().find(|key| key.id == id).ok_or(SealError)?;
        key.cipher
            .decrypt(&Nonce::from(nonce), Payload { msg: text, aad: context.as_bytes() })
            .map_err(|_| SealError)
    }
}

/// A key's id as text.
fn id_text(id: [u8; ID_BYTES]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys of a file, in its order.
fn keys(path: &Path) -> Result<Vec<Arc<SealingKey>>, KeyError> {
    let text = fs::read_to_string(path).map_err(|error| file_error(path, error))?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    let keys = lines.map(|(index, line)| {
        SealingKey::parse(line).map(Arc::new).ok_or_else(|| form_error(path, index + 1))
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(form_error(path, 1)) } else { Ok(keys) }
}

fn file_error(path: &Path, error: std::io::Error) -> KeyError {
    KeyError::File { path: path.display().to_string(), error }
}

fn form_error(path: &Path, line: usize) -> KeyError {
    KeyError::Form { path: path.display().to_string(), line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[[u8; 32]]) -> Vec<Arc<SealingKey>> {
        keys.iter().map(|key| Arc::new(SealingKey::parse(&BASE64.encode(key)).unwrap())).collect()
    }

    fn sealer(keys: &[[u8; 32]]) -> FieldSealer {
        FieldSealer::new(ring(keys))
    }

    #[test]
    fn a_value_opens_only_in_its_own_place_and_unaltered() {
        let sealer = sealer(&[[7; 32]]);
        let sealed = sealer.seal(b"+49 30 1234", "stores/berlin/phone");
        assert_eq!(sealer.open(&sealed, "stores/berlin/phone").unwrap(), b"+49 30 1234");
        assert!(sealer.open(&sealed, "stores/paris/phone").is_err());
        let mut altered = sealed.clone().into_bytes();
        let last = altered.len() - 3;
        altered[last] = if altered[last] == b'A' { b'B' } else { b'A' };
        assert!(sealer.open(std::str::from_utf8(&altered).unwrap(), "stores/berlin/phone").is_err());
        for text in ["", "fwe1:", "fwe1:AAAA", "plain"] {
            assert!(sealer.open(text, "x").is_err(), "{text}");
        }
        assert_ne!(
            sealed,
            sealer.seal(b"+49 30 1234", "stores/berlin/phone"),
            "each sealing has its own nonce"
        );
    }

    #[test]
    fn an_older_key_still_opens() {
        let old = sealer(&[[1; 32]]).seal(b"x", "c");
        assert_eq!(sealer(&[[2; 32], [1; 32]]).open(&old, "c").unwrap(), b"x");
        assert!(sealer(&[[2; 32]]).open(&old, "c").is_err());
    }

    #[test]
    fn a_new_key_opens_at_once_and_seals_when_every_replica_has_it() {
        let (old, new, now) = ([1; 32], [2; 32], Instant::now());
        let (here, there) = (sealer(&[old]), sealer(&[old]));
        let sealed_under = |at| here.ring.load().sealing(at).id;
        let id = |key: [u8; 32]| ring(&[key])[0].id;
        here.take(ring(&[new, old]), now).unwrap();
        assert!(
            there.open(&here.seal(b"x", "c"), "c").is_ok(),
            "a replica that has not heard of the key reads on"
        );
        assert_eq!(here.open(&sealer(&[new]).seal(b"x", "c"), "c").unwrap(), b"x");
        here.take(ring(&[new, old]), now + SPREAD / 2).unwrap();
        assert_eq!(sealed_under(now + SPREAD - Duration::from_millis(1)), id(old));
        assert_eq!(sealed_under(now + SPREAD), id(new));
    }

    #[test]
    fn the_key_that_seals_cannot_be_taken_away() {
        let sealer = sealer(&[[1; 32]]);
        assert!(sealer.take(ring(&[[2; 32]]), Instant::now()).is_none());
        let sealed = sealer.seal(b"x", "c");
        assert_eq!(sealer.open(&sealed, "c").unwrap(), b"x");
    }
}
