//! The client's certificate with its key, and the authorities of the system, as the driver wants them: files
//! that it reads when it is made. They are in memory, for pods have no folder to write to and a key is not to
//! lie about.

use std::{
    fs,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{MemfdFlags, memfd_create};

/// A file in memory. It is there for as long as this is.
pub struct Pair(OwnedFd);

impl Pair {
    /// A certificate with its key, from their files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn of(cert: &Path, key: Option<&Path>) -> io::Result<Self> {
        let mut file = fs::File::from(memfd_create("client.pem", MemfdFlags::CLOEXEC)?);
        file.write_all(&fs::read(cert)?)?;
        if let Some(key) = key {
            file.write_all(b"\n")?;
            file.write_all(&fs::read(key)?)?;
        }
        Ok(Self(file.into()))
    }

    /// Certificates as PEM.
    ///
    /// # Errors
    /// There is no room for a file.
    pub fn holding(pem: &[u8]) -> io::Result<Self> {
        let mut file = fs::File::from(memfd_create("authorities.pem", MemfdFlags::CLOEXEC)?);
        file.write_all(pem)?;
        Ok(Self(file.into()))
    }

    /// Where it can be opened by this process.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_in_one_file_that_no_folder_has() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        fs::write(&cert, "certificate").unwrap();
        assert!(Pair::of(&cert, Some(&key)).is_err(), "the key is not there");
        fs::write(&key, "key").unwrap();
        let pair = Pair::of(&cert, Some(&key)).unwrap();
        for _ in 0..2 {
            assert_eq!(fs::read_to_string(pair.path()).unwrap(), "certificate\nkey");
        }
        assert!(fs::read_link(pair.path()).unwrap().to_string_lossy().starts_with("/memfd:"));
    }
}
