//! Encryption of fields: AES-256-GCM-SIV (RFC 8452), which stays safe should a nonce ever repeat.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use aes_gcm_siv::{
    Aes256GcmSiv, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use sha2::{Digest, Sha256};

use crate::domain::seal::{SealError, Sealer};

/// What a sealed value starts with: the form's version.
const PREFIX: &str = "fwe1:";
const ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;

/// Seals under the first key and opens under any, so that a key can be replaced while old values remain.
pub struct FieldSealer {
    keys: Vec<SealingKey>,
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
    #[error("{path}: line {line} is not 32 bytes in base64 (make one with: head -c 32 /dev/urandom | base64)")]
    Form {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
}

impl FieldSealer {
    /// Reads the keys from a file: one in base64 a line, the newest first.
    ///
    /// # Errors
    /// The file cannot be read, has no key, or a line is no key.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|error| file_error(path, error))?;
        let keys: Vec<_> = text
            .lines()
            .map(str::trim)
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
            .map(|(index, line)| SealingKey::parse(line).ok_or_else(|| form_error(path, index + 1)))
            .collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(form_error(path, 1)) } else { Ok(Self { keys }) }
    }

    /// Seals under a key that goes with the process: for services without encrypted fields, which never seal anything that lasts.
    pub fn ephemeral() -> Self {
        let bytes: [u8; 32] = rand::random();
        Self { keys: SealingKey::new(&bytes).into_iter().collect() }
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
    fn seal(&self, plain: &[u8], context: &str) -> String {
        let SealingKey { id, cipher } = &self.keys[0];
        let nonce: [u8; NONCE_BYTES] = rand::random();
        // Encryption fails only for values of more than 64 GiB, which no request can carry.
        let sealed =
            cipher.encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: context.as_bytes() }).unwrap_or_default();
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
        let key = self.keys.iter().find(|key| key.id == id).ok_or(SealError)?;
        key.cipher.decrypt(&Nonce::from(nonce), Payload { msg: text, aad: context.as_bytes() }).map_err(|_| SealError)
    }
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

    fn sealer(keys: &[[u8; 32]]) -> FieldSealer {
        FieldSealer { keys: keys.iter().map(|key| SealingKey::parse(&BASE64.encode(key)).unwrap()).collect() }
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
        assert_ne!(sealed, sealer.seal(b"+49 30 1234", "stores/berlin/phone"), "each sealing has its own nonce");
    }

    #[test]
    fn an_older_key_still_opens() {
        let old = sealer(&[[1; 32]]).seal(b"x", "c");
        assert_eq!(sealer(&[[2; 32], [1; 32]]).open(&old, "c").unwrap(), b"x");
        assert!(sealer(&[[2; 32]]).open(&old, "c").is_err());
    }
}
