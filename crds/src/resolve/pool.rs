//! What a pool must be, in the service that serves it.

use super::{
    Named, Report,
    backend::{Backends, Wanted},
    references, tier,
};
use model::{
    entities,
    entity::{Home, KEY, RESERVED, VERSION},
    schema::Schema,
};

use crate::{
    pool::{CollectionSource, Entity, FieldSpec, FieldType, JsonForm, PoolSpec, Role, Source, TableSource},
    settings::{PoolSettings, SourceSettings, TierSettings},
    tier::{TierSpec, WriteStrategy},
    units::{Bytes, Span},
};

const RECORD_BYTES_MIN: Bytes = Bytes(1 << 10);
const RECORD_BYTES_MAX: Bytes = Bytes(16 << 20);

/// The settings of one pool, or its faults and those of its tiers.
pub(super) fn settings(
    pool: &Named<PoolSpec>,
    backends: &Backends,
    tiers: &[Named<TierSpec>],
    report: &mut Report<'_>,
) -> Option<PoolSettings> {
    let PoolSpec {
        entity,
        source: declared,
        fields,
        tier_refs: _,
        capacity,
        cleanup,
        warm_up,
        limits,
        access,
    } = &pool.spec;
    let source = match entities::builtin(*entity) {
        Some(schema) => {
            builtin_fields(*entity, &schema, fields, report);
            builtin_source(*entity, &schema, declared.as_ref(), backends, report)
        }
        None => {
            let source = custom_source(declared.as_ref(), backends, report);
            custom_fields(fields, declared.as_ref(), report);
            source
        }
    };
    each_field(fields, report);
    bounds(&pool.spec, report);
    let tiers = pool_tiers(&pool.spec, backends, tiers, report);
    Some(PoolSettings {
        name: pool.name.clone(),
        entity: *entity,
        source: source?,
        fields: fields.clone(),
        tiers,
        capacity: *capacity,
        cleanup: cleanup.clone(),
        warm_up: *warm_up,
        limits: limits.clone(),
        access: access.clone(),
    })
}

fn bounds(spec: &PoolSpec, report: &mut Report<'_>) {
    report.ensure(spec.capacity > 0, "spec.capacity", "must be at least 1");
    report.ensure(
        spec.cleanup.idle_after > Span::default(),
        "spec.cleanup.idleAfter",
        "must be more than 0s",
    );
    report.ensure(spec.cleanup.interval > Span::default(), "spec.cleanup.interval", "must be more than 0s");
    let record = spec.limits.max_record_bytes;
    report.ensure(
        (RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&record),
        "spec.limits.maxRecordBytes",
        format!("must be from {RECORD_BYTES_MIN} to {RECORD_BYTES_MAX}"),
    );
}

fn pool_tiers(
    spec: &PoolSpec,
    backends: &Backends,
    tiers: &[Named<TierSpec>],
    report: &mut Report<'_>,
) -> Vec<TierSettings> {
    let named = references("CacheTier", "spec.tierRefs", &spec.tier_refs, tiers, report);
    let mut redis_before: Option<&str> = None;
    for (index, tier) in &named {
        match redis_before {
            Some(redis) if tier.spec.memory.is_some() => report.add(
                format!("spec.tierRefs[{index}].name"),
                format!(
                    "the memory tier \"{}\" comes after the Redis tier \"{redis}\": name the fastest first",
                    tier.name
                ),
            ),
            _ if tier.spec.redis.is_some() => redis_before = Some(&tier.name),
            _ => {}
        }
        if tier.spec.write == WriteStrategy::WriteBehind {
            let why = spec.entity.definition().not_behind;
            let message = |why| {
                format!(
                    "the tier \"{}\" is WriteBehind, and {why}: use CacheAside or WriteThrough",
                    tier.name
                )
            };
            why.into_iter().for_each(|why| report.add(format!("spec.tierRefs[{index}].name"), message(why)));
        }
    }
    named
        .iter()
        .filter_map(|(_, tier)| tier::settings(tier, backends, &mut report.on("CacheTier", &tier.name)))
        .collect()
}

fn builtin_source(
    entity: Entity,
    schema: &Schema,
    declared: Option<&Source>,
    backends: &Backends,
    report: &mut Report<'_>,
) -> Option<SourceSettings> {
    let fixed = |found: Option<&String>, fixed: &str, path: &str, report: &mut Report<'_>| {
        let same = found.is_none_or(|found| found == fixed);
        report.ensure(same, path, format!("is \"{fixed}\" for {entity:?}: leave it out"));
    };
    let (backend, collection) = match one_of(declared, report)? {
        Declared::Nothing => {
            let wanted = match entity.definition().home {
                Home::Mysql => Wanted::Mysql,
                Home::Mongodb => Wanted::Mongodb,
            };
            (backends.first(wanted).map_err(|message| report.add("spec.source", message)).ok()?, None)
        }
        Declared::Table(TableSource { backend_ref, table, key, version }) => {
            fixed(key.as_ref(), KEY, "spec.source.mysql.key", report);
            fixed(version.as_ref(), VERSION, "spec.source.mysql.version", report);
            (found(backends, &backend_ref.name, Wanted::Mysql, report)?, table.clone())
        }
        Declared::Collection(CollectionSource { backend_ref, collection, key }) => {
            fixed(key.as_ref(), KEY, "spec.source.mongodb.key", report);
            (found(backends, &backend_ref.name, Wanted::Mongodb, report)?, collection.clone())
        }
    };
    Some(SourceSettings {
        backend: backend.to_owned(),
        collection: collection.unwrap_or_else(|| schema.collection.clone()),
        key: KEY.to_owned(),
        version: Some(VERSION.to_owned()),
    })
}

fn custom_source(
    declared: Option<&Source>,
    backends: &Backends,
    report: &mut Report<'_>,
) -> Option<SourceSettings> {
    let (backend, collection, key, version) = match one_of(declared, report)? {
        Declared::Nothing => {
            report.add("spec.source", "a Custom pool declares its source: name one of mysql and mongodb");
            return None;
        }
        Declared::Table(TableSource { backend_ref, table, key, version }) => {
            report.ensure(table.is_some(), "spec.source.mysql.table", "a Custom pool names its table");
            report.ensure(
                key.is_some(),
                "spec.source.mysql.key",
                "a Custom pool names the column that identifies a row",
            );
            (found(backends, &backend_ref.name, Wanted::Mysql, report), table, key.clone(), version.clone())
        }
        Declared::Collection(CollectionSource { backend_ref, collection, key }) => {
            report.ensure(
                collection.is_some(),
                "spec.source.mongodb.collection",
                "a Custom pool names its collection",
            );
            let key = key.clone().unwrap_or_else(|| KEY.to_owned());
            let backend = found(backends, &backend_ref.name, Wanted::Mongodb, report);
            (backend, collection, Some(key), Some(VERSION.to_owned()))
        }
    };
    Some(SourceSettings { backend: backend?.to_owned(), collection: collection.clone()?, key: key?, version })
}

/// A source, parsed: what the pool says of it.
enum Declared<'a> {
    Nothing,
    Table(&'a TableSource),
    Collection(&'a CollectionSource),
}

fn one_of<'a>(source: Option<&'a Source>, report: &mut Report<'_>) -> Option<Declared<'a>> {
    let Some(Source { mysql, mongodb }) = source else { return Some(Declared::Nothing) };
    match (mysql, mongodb) {
        (Some(table), None) => Some(Declared::Table(table)),
        (None, Some(collection)) => Some(Declared::Collection(collection)),
        _ => {
            report.add("spec.source", "name exactly one of mysql and mongodb");
            None
        }
    }
}

fn found<'b>(backends: &'b Backends, name: &str, wanted: Wanted, report: &mut Report<'_>) -> Option<&'b str> {
    let kind = if wanted == Wanted::Mysql { "mysql" } else { "mongodb" };
    let found = backends.find(name, wanted);
    found.map_err(|message| report.add(format!("spec.source.{kind}.backendRef.name"), message)).ok()
}

fn builtin_fields(entity: Entity, schema: &Schema, fields: &[FieldSpec], report: &mut Report<'_>) {
    let shown = schema.fields.iter().filter(|field| !field.internal);
    let names: Vec<&str> = shown.map(|field| field.name.as_str()).collect();
    for (index, field) in fields.iter().enumerate() {
        let at = |part: &str| format!("spec.fields[{index}].{part}");
        if !names.contains(&field.name.as_str()) {
            let message =
                format!("{entity:?} has no field \"{}\"; there are: {}", field.name, names.join(", "));
            report.add(at("name"), message);
        }
        report.ensure(
            field.kind.is_none(),
            at("type"),
            format!("{entity:?} knows the types of its fields: leave it out"),
        );
        report.ensure(
            !field.required,
            at("required"),
            format!("{entity:?} knows which fields it needs: leave it out"),
        );
        report.ensure(
            field.json.is_none(),
            at("json"),
            format!("{entity:?} knows how its fields go out: leave it out"),
        );
    }
}

fn custom_fields(fields: &[FieldSpec], source: Option<&Source>, report: &mut Report<'_>) {
    report.ensure(!fields.is_empty(), "spec.fields", "a Custom pool declares its fields");
    let table = source.and_then(|source| source.mysql.as_ref());
    let document = source.and_then(|source| source.mongodb.as_ref());
    let key = match (table, document) {
        (Some(table), _) => table.key.as_deref(),
        (None, Some(document)) => Some(document.key.as_deref().unwrap_or(KEY)),
        (None, None) => None,
    };
    let version = table.and_then(|table| table.version.as_deref());
    report.ensure(
        version.is_none() || version != key,
        "spec.source.mysql.version",
        "the version cannot be the column that identifies a row",
    );
    for (index, field) in fields.iter().enumerate() {
        let at = |part: &str| format!("spec.fields[{index}].{part}");
        let name = field.name.as_str();
        let is_key = key == Some(name);
        let is_version = version == Some(name);
        report.ensure(field.kind.is_some(), at("type"), "every field of a Custom pool has a type");
        let form = match (field.kind, field.json) {
            (Some(FieldType::Decimal), Some(JsonForm::Number)) => {
                Some("a Decimal always goes out as a String: leave it out")
            }
            (Some(FieldType::Integer | FieldType::Decimal), _) | (_, None) => None,
            (_, Some(_)) => Some("is for fields of the type Integer: leave it out"),
        };
        form.into_iter().for_each(|why| report.add(at("json"), why));
        let reserved = RESERVED.contains(&name) || (document.is_some() && name.starts_with('_'));
        report.ensure(
            !reserved || is_key || is_version,
            at("name"),
            format!("\"{name}\" is kept for every record by Flyweight itself: leave it out"),
        );
        if is_key {
            report.ensure(!field.encrypt, at("encrypt"), "the key cannot be encrypted");
            let fits = matches!(field.kind, None | Some(FieldType::String | FieldType::Integer));
            report.ensure(fits, at("type"), "the key is String or Integer");
        }
        if is_key || is_version {
            let message = "the key is always a String and the version a Number: leave it out";
            report.ensure(field.json.is_none(), at("json"), message);
        }
        if is_version {
            report.ensure(!field.encrypt, at("encrypt"), "the version cannot be encrypted");
            let fits = matches!(field.kind, None | Some(FieldType::Integer));
            report.ensure(fits, at("type"), "the version is Integer");
        }
    }
}

fn each_field(fields: &[FieldSpec], report: &mut Report<'_>) {
    report.unique("spec.fields", "name", fields.iter().map(|field| field.name.as_str()));
    for (index, field) in fields.iter().enumerate() {
        report.ensure(
            !(field.encrypt && field.role == Role::Intrinsic),
            format!("spec.fields[{index}].role"),
            "an encrypted field is never shared: it cannot be Intrinsic",
        );
    }
}
