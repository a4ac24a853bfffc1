//! Resources from files, without a cluster: checked as strictly as the API server does under `kubectl apply`,
//! then resolved.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::Path as FilePath,
};

use serde::de::DeserializeOwned;

use self::{
    document::{Document, FILE_BYTES_MAX, documents, unreadable},
    path::Path,
    shape::{Shape, shapes},
};
use crate::{
    GROUP,
    annotations::TAKE_OVER_FROM,
    fault::Fault,
    pool::{Entity, PoolSpec},
    resolve::{Named, plaintext, resolve},
    service::ServiceSpec,
    settings::{Settings, names::Origin},
    tier::TierSpec,
};

mod document;
mod lines;
mod path;
mod shape;

/// Who writes a pool.
const WRITERS: &str = "spec.access.write";

/// The most files that are read from a folder.
const FILES_MAX: usize = 256;

/// What came out of checking files.
#[derive(Debug)]
pub struct Checked {
    /// The settings of the chosen service, or every fault, sorted by resource and path.
    pub settings: Result<Settings, Vec<Fault>>,
    /// What was left aside, such as resources of other kinds, each with its place.
    pub notes: Vec<String>,
    /// What works and becomes a fault in the next release.
    pub warnings: Vec<Fault>,
}

/// Reads a folder (its `.yaml`, `.yml` and `.json` files, not those of folders below) or a single file, and
/// resolves the service in it.
///
/// `service` chooses one by its name; without it there must be exactly one.
///
/// # Errors
/// Every fault of the files, of the resources in them and of how they fit together, with file and line.
pub fn load(path: &FilePath, service: Option<&str>) -> Result<Settings, Vec<Fault>> {
    check(&read(path)?, service).settings
}

/// Reads the manifests of a folder, a single one, or what comes in where the path is `-`, as names and texts for [`check`], in the order of their
/// names.
///
/// # Errors
/// What cannot be read, is too large or is too much.
pub fn read(path: &FilePath) -> Result<Vec<(String, String)>, Vec<Fault>> {
    let fault = |path: &FilePath, message: String| vec![unreadable(path.display().to_string(), message)];
    let failed = |path: &FilePath, error: io::Error| fault(path, format!("cannot be read: {error}"));
    if path == FilePath::new("-") {
        let mut text = String::new();
        let read = io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        return read.map(|_| vec![("-".to_owned(), text)]).map_err(|error| failed(path, error));
    }
    let mut paths = vec![path.to_owned()];
    if fs::metadata(path).map_err(|error| failed(path, error))?.is_dir() {
        let entries: Result<Vec<_>, _> = fs::read_dir(path).and_then(Iterator::collect);
        paths = entries
            .map_err(|error| failed(path, error))?
            .into_iter()
            .map(|entry: fs::DirEntry| entry.path())
            .collect();
        let is_manifest = |path: &std::path::PathBuf| {
            path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
        };
        paths.retain(|path| is_manifest(path) && path.is_file());
        paths.sort();
        if paths.is_empty() {
            return Err(fault(path, "holds no .yaml, .yml or .json file".to_owned()));
        }
        if paths.len() > FILES_MAX {
            return Err(fault(path, format!("holds more than {FILES_MAX} files")));
        }
    }
    let (mut files, mut faults) = (Vec::with_capacity(paths.len()), Vec::new());
    for path in paths {
        match fs::metadata(&path).and_then(|found| {
            if found.len() > FILE_BYTES_MAX { Ok(None) } else { fs::read_to_string(&path).map(Some) }
        }) {
            Ok(Some(text)) => files.push((path.display().to_string(), text)),
            Ok(None) => faults.extend(fault(&path, format!("is larger than {FILE_BYTES_MAX} bytes"))),
            Err(error) => faults.extend(failed(&path, error)),
        }
    }
    if faults.is_empty() { Ok(files) } else { Err(faults) }
}

/// Checks manifests, given as names and texts of files, and resolves the service in them.
///
/// Resources with faults still take part as far as they can be read, so that one run finds what is wrong
/// everywhere.
pub fn check(files: &[(String, String)], service: Option<&str>) -> Checked {
    let mut folder = Folder::default();
    match shapes() {
        Ok(shapes) => {
            for (file, text) in files {
                for document in documents(file, text, &mut folder.unreadable) {
                    folder.take(document, shapes);
                }
            }
        }
        Err(error) => folder.unreadable.push(unreadable("crds/generated".to_owned(), error.to_owned())),
    }
    folder.resolve(service)
}

/// Everything that was read from the files.
#[derive(Default)]
struct Folder {
    resources: BTreeMap<Id, Resource>,
    unreadable: Vec<Fault>,
    faults: Vec<Fault>,
    notes: Vec<String>,
}

/// Kind, namespace and name. No namespace is one of its own.
type Id = (&'static str, Option<String>, String);

/// One resource, mended where its shape was wrong.
struct Resource {
    document: Document,
    /// Where its shape was wrong: nothing more is said of what is there or below.
    replaced: BTreeSet<Path>,
}

impl Folder {
    fn take(&mut self, mut document: Document, shapes: &'static [Shape]) {
        let text = |key: &str| document.value[key].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Some(shape) = shapes.iter().find(|shape| shape.kind == kind) else {
            return self.other(&document, &api_version, &kind);
        };
        let named = |key: &str| document.value["metadata"][key].as_str().map(str::to_owned);
        let (name, namespace) = (named("name"), named("namespace"));
        let label = format!("{kind}/{}", name.as_deref().unwrap_or("?"));
        let fault = |path: &Path, message: String, place: String| Fault {
            resource: label.clone(),
            path: path.to_string(),
            message,
            place: Some(place),
        };
        for (path, place) in document.twice() {
            self.faults.push(fault(&path, "is written twice in the same mapping".to_owned(), place));
        }
        let findings = shape.check(&mut document.value);
        for (path, message) in findings.faults {
            let place = document.place(&path);
            self.faults.push(fault(&path, message, place));
        }
        let Some(name) = name else { return };
        let (place, replaced) = (document.place(&Path::default()), findings.replaced);
        if let Some(first) = self.resources.get(&(shape.kind, namespace.clone(), name.clone())) {
            let message = format!("is declared twice, first in {}", first.document.place(&Path::default()));
            self.faults.push(fault(&Path::parse("metadata.name"), message, place));
        } else {
            self.resources.insert((shape.kind, namespace, name), Resource { document, replaced });
        }
    }

    /// What is none of the three kinds: a note, or a fault where it was meant to be one of them.
    fn other(&mut self, document: &Document, api_version: &str, kind: &str) {
        let place = document.place(&Path::parse("kind"));
        if kind.is_empty() {
            self.unreadable
                .push(unreadable(place, "is not a Kubernetes resource: it has no kind".to_owned()));
        } else if api_version.split('/').next() == Some(GROUP) {
            let message =
                format!("{GROUP} has no kind {kind}; there are: CacheTier, FlyweightPool, FlyweightService");
            self.unreadable.push(unreadable(place, message));
        } else {
            self.notes
                .push(format!("{place}: {api_version} {kind} is not one of Flyweight's kinds: left aside"));
        }
    }

    fn resolve(mut self, service: Option<&str>) -> Checked {
        let resolved = self.choose(service).and_then(|id| Ok((self.resolved(&id)?, id)));
        let warnings =
            resolved.as_ref().map_or_else(|_| Vec::new(), |(settings, id)| self.warnings(settings, id));
        let settings = resolved.map(|(settings, _)| settings);
        let notes = std::mem::take(&mut self.notes);
        let mut faults: BTreeSet<Fault> = self.unreadable.into_iter().chain(self.faults).collect();
        let settings = match settings {
            Ok(settings) if faults.is_empty() => Ok(settings),
            Ok(_) => Err(faults.into_iter().collect()),
            Err(more) => {
                faults.extend(more);
                Err(faults.into_iter().collect())
            }
        };
        Checked { settings, notes, warnings }
    }

    /// What works and becomes a fault.
    fn warnings(&self, settings: &Settings, id: &Id) -> Vec<Fault> {
        let (_, namespace, name) = id;
        let services: Vec<Named<ServiceSpec>> = self.specs("FlyweightService", namespace).unwrap_or_default();
        let own = services.iter().filter(|service| service.name == *name).flat_map(plaintext::unsaid);
        let unsaid = own.filter_map(|fault| self.placed(fault, namespace));
        unsaid.chain(self.unsaid(settings, namespace)).collect()
    }

    /// Pools that do not say who writes them, while callers show tokens: everybody who has one.
    fn unsaid(&self, settings: &Settings, namespace: &Option<String>) -> Vec<Fault> {
        if !settings.security.asks_for_tokens() {
            return Vec::new();
        }
        let pools = settings.pools.iter().filter_map(|pool| {
            let resource = self.resources.get(&("FlyweightPool", namespace.clone(), pool.name.clone()))?;
            let spec = &resource.document.value["spec"];
            let is_read_only = pool.entity == Entity::Custom
                && ["mysql", "mongodb"].iter().all(|source| spec["source"][source]["version"].is_null());
            if is_read_only || !spec["access"]["write"].is_null() {
                return None;
            }
            Some(Fault {
                resource: format!("FlyweightPool/{}", pool.name),
                path: WRITERS.to_owned(),
                message:
                    "is left out, so everybody with a token may write: name the roles that may, or \"*\". \
                          The next release lets nobody write then"
                        .to_owned(),
                place: Some(resource.document.place(&Path::parse(WRITERS))),
            })
        });
        pools.collect()
    }

    /// The service that was asked for, or the only one.
    fn choose(&self, service: Option<&str>) -> Result<Id, Vec<Fault>> {
        let all: Vec<&Id> = self.resources.keys().filter(|(kind, ..)| *kind == "FlyweightService").collect();
        let chosen: Vec<&Id> =
            all.iter().copied().filter(|(.., name)| service.is_none_or(|wanted| wanted == name)).collect();
        let names: Vec<&str> = all.iter().map(|(.., name)| name.as_str()).collect();
        let message = match (chosen.as_slice(), service) {
            ([one], _) => return Ok((*one).clone()),
            ([], None) => "there is no FlyweightService in the manifests".to_owned(),
            ([], Some(wanted)) => {
                format!("no FlyweightService \"{wanted}\" in the manifests; there are: {}", names.join(", "))
            }
            (_, None) => format!("there are several services, choose one: {}", names.join(", ")),
            (_, Some(wanted)) => format!("FlyweightService \"{wanted}\" is there in several namespaces"),
        };
        Err(vec![Fault { resource: String::new(), path: String::new(), message, place: None }])
    }

    fn resolved(&self, id: &Id) -> Result<Settings, Vec<Fault>> {
        let (_, namespace, name) = id;
        let mut services: Vec<Named<ServiceSpec>> = self.specs("FlyweightService", namespace)?;
        services.retain(|service| service.name == *name);
        let (pools, tiers): (Vec<Named<PoolSpec>>, Vec<Named<TierSpec>>) =
            (self.specs("FlyweightPool", namespace)?, self.specs("CacheTier", namespace)?);
        let Some(service) = services.first() else { return Err(Vec::new()) };
        let annotations = &self.resources[id].document.value["metadata"]["annotations"];
        let take_over_from = annotations[TAKE_OVER_FROM].as_str().map(str::to_owned);
        if let Some(fault) = Origin::fault(take_over_from.as_deref(), name) {
            return Err(self.placed(fault, namespace).into_iter().collect());
        }
        let origin = Origin { namespace: namespace.clone(), take_over_from };
        let mut readable = plaintext::in_spec(service);
        let resolved = resolve(service, &pools, &tiers).map_err(|faults| readable.extend(faults));
        match resolved {
            Ok(settings) if readable.is_empty() => Ok(Settings { origin, ..settings }),
            _ => Err(readable.into_iter().filter_map(|fault| self.placed(fault, namespace)).collect()),
        }
    }

    fn specs<S: DeserializeOwned>(
        &self,
        kind: &str,
        namespace: &Option<String>,
    ) -> Result<Vec<Named<S>>, Vec<Fault>> {
        let mut specs = Vec::new();
        let mut faults = Vec::new();
        for ((_, _, name), resource) in
            self.resources.iter().filter(|((k, n, _), _)| *k == kind && n == namespace)
        {
            match serde_json::from_value(resource.document.value["spec"].clone()) {
                Ok(spec) => specs.push(Named { name: name.clone(), spec }),
                Err(error) => faults.push(Fault {
                    resource: format!("{kind}/{name}"),
                    path: "spec".to_owned(),
                    message: error.to_string(),
                    place: Some(resource.document.place(&Path::parse("spec"))),
                }),
            }
        }
        if faults.is_empty() { Ok(specs) } else { Err(faults) }
    }

    /// The fault with its file and line; none where the shape was already at fault.
    fn placed(&self, fault: Fault, namespace: &Option<String>) -> Option<Fault> {
        let at = Path::parse(&fault.path);
        let of = |((kind, n, name), _): &(&Id, &Resource)| {
            n == namespace && fault.resource == format!("{kind}/{name}")
        };
        let Some((_, resource)) = self.resources.iter().find(of) else { return Some(fault) };
        // The entity decides what everything else in a pool means: where it is wrong, only the shape can be.
        let unknown = resource.replaced.contains(&Path::parse("spec.entity"));
        let said = unknown || resource.replaced.iter().any(|replaced| at.starts_with(replaced));
        (!said).then(|| Fault { place: Some(resource.document.place(&at)), ..fault })
    }
}
