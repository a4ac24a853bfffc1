//! The manifests that suites serve: the samples, and folders of backends that stand in for mounted Secrets.

use std::{fs, path::Path};

use crate::root;

/// The folder of the sample shop.
pub fn samples() -> std::path::PathBuf {
    root().join("configs/samples")
}

/// Where the samples leave out what topics start with, and what suites write there: some look at the topics
/// themselves.
const KAFKA: &str = "secretRef: { name: shop-kafka }";
const KAFKA_PREFIXED: &str = "topicPrefix: \"shop.\"\n        secretRef: { name: shop-kafka }";

/// Writes the sample shop into a folder, with more lines in the service's spec. Its topics start with
/// `shop.`.
///
/// # Panics
/// A file cannot be read or written.
pub fn write_samples_with(dir: &Path, more: &str) {
    let copy = |path: std::path::PathBuf| -> std::io::Result<()> {
        let mut text = fs::read_to_string(&path)?;
        if path.ends_with("service.yaml") {
            text = text.replacen("\nspec:\n", &format!("\nspec:\n{more}"), 1);
            text = text.replacen(KAFKA, KAFKA_PREFIXED, 1);
        }
        fs::write(dir.join(path.file_name().unwrap_or_default()), text)
    };
    let all = fs::read_dir(samples()).and_then(|all| all.collect::<Result<Vec<_>, _>>());
    let done = fs::create_dir_all(dir)
        .and(all)
        .and_then(|all| all.into_iter().try_for_each(|file| copy(file.path())));
    done.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
}

/// Writes the sample shop into a folder with these of its backends alone, in this order. Pools whose store is
/// not among them are kept in MySQL, and without Redis no tier is shared.
///
/// # Panics
/// A file cannot be read or written.
pub fn write_samples_over(dir: &Path, backends: &[&str], more: &str) {
    write_samples_with(dir, more);
    let edit = |file: &str, change: &dyn Fn(String) -> String| {
        let path = dir.join(file);
        let done = fs::read_to_string(&path).and_then(|text| fs::write(&path, change(text)));
        done.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    edit("service.yaml", &|text| {
        let (before, rest) = text.split_once("  backends:\n").unwrap_or_default();
        let (all, after) = rest.split_once("  disruption:\n").unwrap_or_default();
        let block = |name: &&str| {
            let blocks = all.split("    - name: ").find(|block| block.starts_with(&format!("{name}\n")));
            format!("    - name: {}", blocks.unwrap_or_default())
        };
        let chosen: String = backends.iter().map(block).collect();
        format!("{before}  backends:\n{chosen}  disruption:\n{after}")
    });
    if !backends.contains(&"redis") {
        edit("pools.yaml", &|text| text.replace("    - name: shared\n", ""));
        edit("tiers.yaml", &|text| text.split("---").next().unwrap_or_default().to_owned());
    }
    if !backends.contains(&"mongodb") {
        let source = "\n  source: { mysql: { backendRef: { name: mysql } } }\n";
        edit("pools.yaml", &|text| {
            let homes = ["Product", "NotificationTemplate", "Configuration"];
            homes.iter().fold(text, |text, entity| {
                let line = format!("  entity: {entity}");
                text.replacen(&format!("{line}\n"), &format!("{line}{source}"), 1)
            })
        });
    }
}

/// Writes the addresses of backends as a pod finds them: `<dir>/<name>/url`.
///
/// # Panics
/// A file cannot be written.
pub fn write_backends(dir: &Path, urls: &[(&str, String)]) {
    for (name, url) in urls {
        let folder = dir.join(name);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join("url"), url))
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
}

/// Gives a backend the files of a Secret, its address among them.
///
/// # Panics
/// A file cannot be read or written.
pub fn copy_secret(from: &Path, to: &Path) {
    let copied = fs::read_dir(from).and_then(|mut files| {
        files.try_for_each(|file| {
            file.and_then(|file| fs::copy(file.path(), to.join(file.file_name()))).map(|_| ())
        })
    });
    copied.unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// Writes a key for encrypted fields as a pod finds it: `<dir>/encryption/key`.
///
/// # Panics
/// The file cannot be written.
pub fn write_encryption_key(dir: &Path) {
    let folder = dir.join("encryption");
    // 32 bytes of 7 in base64: a test's key protects nothing.
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join("key"), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"))
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}

/// Writes the sample shop into a folder, with configurations that are acknowledged before the store has them.
///
/// # Panics
/// A file cannot be read or written.
pub fn write_behind_samples(dir: &Path) {
    write_samples_with(dir, "");
    make_write_behind(dir);
}

/// Lets configurations in a folder of samples be acknowledged before the store has them.
///
/// # Panics
/// A file cannot be read or written.
pub fn make_write_behind(dir: &Path) {
    const TIER: &str = "apiVersion: flyweight.dev/v1alpha1\nkind: CacheTier\nmetadata: { name: behind }\n\
        spec: { memory: { maxBytes: 8Mi }, ttl: 60s, write: WriteBehind }\n";
    const POOL: &str = "  name: configurations\n";
    let pools = dir.join("pools.yaml");
    let done = fs::read_to_string(&pools)
        .and_then(|text| {
            let (before, own) = text.split_once(POOL).unwrap_or_default();
            fs::write(&pools, format!("{before}{POOL}{}", own.replacen("- name: hot", "- name: behind", 1)))
        })
        .and_then(|()| fs::write(dir.join("behind.yaml"), TIER));
    done.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
}
