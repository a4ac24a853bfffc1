//! The files of a backend's mounted Secret.

#![cfg_attr(
    not(all(feature = "mysql", feature = "mongodb", feature = "redis", feature = "kafka")),
    allow(dead_code, reason = "what is left out uses it")
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use crds::{
    service::backends::{Authorities, BackendTls},
    settings::BackendSettings,
};
use model::passage::Passage;

use super::Place;
use crate::{app::rotation::Folder, security::tls::system_authorities};

/// The files of one backend's Secret.
pub struct Files {
    /// Its folder.
    pub dir: PathBuf,
    /// How its servers are reached.
    pub passage: Passage,
}

impl Files {
    /// Its address.
    pub fn url(&self) -> anyhow::Result<String> {
        self.text("url")?.with_context(|| {
            format!(
                "{} is not there: a backend's Secret has its address under the key `url`",
                self.dir.join("url").display()
            )
        })
    }

    fn text(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// The file of this name, where there is one.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let path: &Path = &self.dir.join(name);
        path.exists().then(|| path.to_path_buf())
    }
}

/// The files of a backend and their folder; none where an embedded store stands in for it.
pub fn files_of(place: &Place, backend: &BackendSettings) -> anyhow::Result<Option<(Files, Folder)>> {
    let BackendSettings { name, secret: _, tls, plaintext, kind: _ } = backend;
    let Place::Backends(dir) = place else { return Ok(None) };
    let passage = Passage::new(name, *plaintext);
    let passage = match tls {
        Some(BackendTls { authorities: Authorities::System }) => {
            let authorities = system_authorities().map_err(|fault| anyhow!("backend {name}: {fault}"))?;
            passage.trusting(&authorities)
        }
        None => passage,
    };
    Ok(Some((Files { dir: dir.join(name), passage }, Folder::of("backends", dir, name))))
}
