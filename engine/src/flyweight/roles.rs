//! Measured roles: which of a pool's fields to share, so that its entities take the fewest bytes.
//!
//! A sample of the records that are put is kept as hashes and sizes of their fields. The number of distinct
//! shared states of a split in the whole pool is estimated from the sample by Chao's estimator for sampling
//! without replacement (Chao and Lin, 2012). Fields are then added and dropped greedily as long as the
//! estimated bytes fall. The split in use changes only for a clear gain.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    codec::{Split, write_member},
    shape::Shape,
};
use model::{
    record::Record,
    schema::{Field, Role, Schema},
};

/// Samples the records of one pool and chooses its split.
pub struct Roles {
    schema: Arc<Schema>,
    whole: Shape,
    declared: Split,
    current: Split,
    samples: VecDeque<Sample>,
    /// The number of a sample by its key; the front of `samples` has the number `gone`.
    by_key: HashMap<u64, u64>,
    gone: u64,
    since_choice: usize,
    estimates: Option<Estimates>,
}

/// Why a pool's fields are shared or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Records in the sample.
    pub sampled: u64,
    /// What the split in use takes per entity, shared states included, in bytes; none before the first
    /// choice.
    pub bytes_per_entity: Option<f64>,
    /// What no sharing at all would take per entity, in bytes.
    pub bytes_per_entity_unshared: Option<f64>,
    /// Distinct shared states of the split in use, estimated for the whole pool.
    pub distinct: Option<u64>,
    /// Each field, in the schema's order.
    pub fields: Vec<FieldRole>,
}

/// Why one field is shared or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldRole {
    /// The field.
    pub field: String,
    /// What the pool says about it.
    pub declared: Role,
    /// Whether it is shared.
    pub shared: bool,
    /// Distinct values, estimated for the whole pool; none before the first choice.
    pub distinct: Option<u64>,
    /// Bytes that this choice saves in the whole pool against the other one, estimated; below 0 it costs
    /// some, within the margin of a change.
    pub bytes_saved: Option<i64>,
    /// Why.
    pub reason: String,
}

struct Sample {
    key: u64,
    fields: Box<[Measure]>,
}

#[derive(Clone, Copy)]
struct Measure {
    content: u32,
    /// Half bytes when packed with the record, as far as they can be counted here.
    own: u16,
    /// Bytes when shared, as JSON, as far as they can be counted here.
    shared: u16,
}

struct Estimates {
    entities: u64,
    current: Cost,
    unshared: Cost,
    /// For each field: its distinct values, and the bytes per entity that it gains by being as it is.
    fields: Vec<(u64, f64)>,
}

#[derive(Clone, Copy)]
struct Cost {
    per_entity: f64,
    distinct: f64,
}

const SAMPLES_MAX: usize = 1024;
/// No choice is made from fewer records.
const SAMPLES_MIN: usize = 256;
/// How many records are sampled between two choices.
const CHOICE_EVERY: usize = 512;
/// Another split is chosen only where it takes less than this part of what the current one takes.
const CLEARLY_LESS: f64 = 0.93;
/// What a shared state takes beside its text.
const STATE_OVERHEAD: f64 = 130.0;

impl Roles {
    /// Starts with the declared fields alone.
    pub fn new(schema: Arc<Schema>) -> Self {
        let declared = Split::declared(&schema);
        Self {
            whole: Shape::new(schema.clone(), Split::NONE),
            schema,
            declared,
            current: declared,
            samples: VecDeque::new(),
            by_key: HashMap::new(),
            gone: 0,
            since_choice: 0,
            estimates: None,
        }
    }

    /// Whether a record with this hash of its key is to be sampled, in a pool of so many entities.
    pub fn wants(key: u64, entities: u64) -> bool {
        let one_in = (entities / (4 * SAMPLES_MAX as u64)).next_power_of_two();
        (key >> 32) & (one_in - 1) == 0
    }

    /// Takes a record into the sample. Gives a split when it is to be used from now on instead of the one
    /// before.
    pub fn observe(&mut self, key: u64, record: &Record, entities: u64) -> Option<Split> {
        if record.values.0.len() != self.schema.fields.len() || !self.has_choice() {
            return None;
        }
        self.take(Sample { key, fields: self.measure(record) });
        self.since_choice += 1;
        let due = if self.estimates.is_none() { SAMPLES_MIN } else { CHOICE_EVERY };
        if self.since_choice < due || self.samples.len() < SAMPLES_MIN {
            return None;
        }
        self.since_choice = 0;
        self.choose(entities.max(self.samples.len() as u64))
    }

    /// The bytes that the sample takes.
    pub fn bytes(&self) -> usize {
        let each = size_of::<Sample>() + self.schema.fields.len() * size_of::<Measure>() + 16;
        self.samples.capacity() * size_of::<Sample>()
            + self.samples.len() * each
            + self.by_key.capacity() * 18
    }

    /// Why each field is shared or not.
    pub fn explain(&self) -> Explanation {
        let estimates = self.estimates.as_ref();
        Explanation {
            sampled: self.samples.len() as u64,
            bytes_per_entity: estimates.map(|e| e.current.per_entity),
            bytes_per_entity_unshared: estimates.map(|e| e.unshared.per_entity),
            distinct: estimates.map(|e| e.current.distinct.round() as u64),
            fields: self
                .schema
                .fields
                .iter()
                .enumerate()
                .map(|(index, field)| self.explain_field(index, field))
                .collect(),
        }
    }

    fn explain_field(&self, index: usize, field: &Field) -> FieldRole {
        let shared = self.current.shares(index);
        let measured = self.estimates.as_ref().map(|e| (e.entities, e.fields[index]));
        let reason = match (field.role, measured) {
            _ if field.encrypted => "encrypted: never shared".to_owned(),
            (Role::Intrinsic, _) => "declared Intrinsic".to_owned(),
            (Role::Extrinsic, _) => "declared Extrinsic".to_owned(),
            (Role::Auto, None) => {
                format!("not measured yet: {} of {SAMPLES_MIN} records sampled", self.samples.len())
            }
            (Role::Auto, Some((entities, (distinct, gain)))) => {
                let (what, but) = if shared { ("sharing", "") } else { ("keeping it with each record", "") };
                let verb = if gain >= 0.0 { "saves" } else { "costs, within the margin of a change," };
                format!(
                    "{distinct} distinct values in {entities} entities: {what} {verb} {:.1} bytes per entity{but}",
                    gain.abs()
                )
            }
        };
        let distinct = measured.map(|(_, (distinct, _))| distinct);
        let bytes_saved = measured.map(|(entities, (_, gain))| (gain * entities as f64) as i64);
        FieldRole { field: field.name.clone(), declared: field.role, shared, distinct, bytes_saved, reason }
    }

    fn has_choice(&self) -> bool {
        (0..self.schema.fields.len()).any(|index| self.is_free(index))
    }

    /// Whether measuring decides about a field.
    fn is_free(&self, index: usize) -> bool {
        let field = &self.schema.fields[index];
        field.role == Role::Auto && Split::NONE.with(&self.schema, index).shares(index)
    }

    fn measure(&self, record: &Record) -> Box<[Measure]> {
        let own = self.whole.own_sizes(record);
        let mut text = String::new();
        let mut one = |(index, field): (usize, &Field)| {
            text.clear();
            write_member(field, &record.values.0[index], &mut text);
            let small = |size: usize| u16::try_from(size).unwrap_or(u16::MAX);
            Measure {
                content: xxh3_64(text.as_bytes()) as u32,
                own: small(own[index]),
                shared: small(text.len()),
            }
        };
        self.schema.fields.iter().enumerate().map(&mut one).collect()
    }

    /// The newest sample of a key takes the place of the one before; the oldest leaves a full sample.
    fn take(&mut self, sample: Sample) {
        if let Some(number) = self.by_key.get(&sample.key) {
            if let Some(place) = self.samples.get_mut((number - self.gone) as usize) {
                *place = sample;
            }
            return;
        }
        if self.samples.len() == SAMPLES_MAX
            && let Some(oldest) = self.samples.pop_front()
        {
            self.by_key.remove(&oldest.key);
            self.gone += 1;
        }
        self.by_key.insert(sample.key, self.gone + self.samples.len() as u64);
        self.samples.push_back(sample);
    }

    fn choose(&mut self, entities: u64) -> Option<Split> {
        let grown = self.improve(self.declared, entities);
        let everything = (0..self.schema.fields.len())
            .filter(|index| self.is_free(*index))
            .fold(self.declared, |split, index| split.with(&self.schema, index));
        let shrunk = self.improve(everything, entities);
        let best = if grown.1.per_entity <= shrunk.1.per_entity { grown } else { shrunk };
        let current = self.cost(self.current, entities);
        let changes = best.0 != self.current && best.1.per_entity < current.per_entity * CLEARLY_LESS;
        if changes {
            self.current = best.0;
        }
        self.estimates = Some(self.estimate(entities));
        changes.then_some(self.current)
    }

    /// Adds or drops the one field that saves most, until none does.
    fn improve(&self, mut split: Split, entities: u64) -> (Split, Cost) {
        let mut cost = self.cost(split, entities);
        loop {
            let neighbours =
                (0..self.schema.fields.len()).filter(|index| self.is_free(*index)).map(|index| {
                    let other = self.flipped(split, index);
                    (other, self.cost(other, entities))
                });
            let best = neighbours.min_by(|a, b| a.1.per_entity.total_cmp(&b.1.per_entity));
            match best {
                // Each step lowers the cost by a real amount, so that this comes to an end.
                Some((other, less)) if less.per_entity < cost.per_entity - 1e-6 => {
                    (split, cost) = (other, less)
                }
                _ => return (split, cost),
            }
        }
    }

    fn flipped(&self, split: Split, index: usize) -> Split {
        if split.shares(index) { split.without(index) } else { split.with(&self.schema, index) }
    }

    fn estimate(&self, entities: u64) -> Estimates {
        let current = self.cost(self.current, entities);
        let field = |index| {
            let alone = self.cost(Split::NONE.with(&self.schema, index), entities).distinct.round() as u64;
            (alone, self.cost(self.flipped(self.current, index), entities).per_entity - current.per_entity)
        };
        let fields = (0..self.schema.fields.len()).map(field).collect();
        Estimates { entities, current, unshared: self.cost(Split::NONE, entities), fields }
    }

    /// What a split would take per entity in a pool of so many.
    fn cost(&self, split: Split, entities: u64) -> Cost {
        let (mut own, mut shared) = (0u64, 0u64);
        let mut states: HashMap<u64, u32> = HashMap::with_capacity(self.samples.len());
        for sample in &self.samples {
            let mut state = 0u64;
            for (index, measure) in sample.fields.iter().enumerate() {
                if split.shares(index) {
                    shared += u64::from(measure.shared);
                    state = (state.rotate_left(5) ^ u64::from(measure.content))
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                } else {
                    own += u64::from(measure.own);
                }
            }
            *states.entry(state).or_default() += 1;
        }
        let (sampled, entities) = (self.samples.len() as f64, entities as f64);
        let own = own as f64 / 2.0 / sampled;
        if split.is_none() {
            return Cost { per_entity: own, distinct: 0.0 };
        }
        let distinct = distinct_in_all(states.values().copied(), sampled, entities);
        Cost { per_entity: own + distinct / entities * (shared as f64 / sampled + STATE_OVERHEAD), distinct }
    }
}

/// How many distinct states a whole has, from how often each was met in a sample.
fn distinct_in_all(met: impl Iterator<Item = u32>, sampled: f64, whole: f64) -> f64 {
    let (mut distinct, mut once, mut twice) = (0.0, 0.0, 0.0);
    for times in met {
        distinct += 1.0;
        once += f64::from(u8::from(times == 1));
        twice += f64::from(u8::from(times == 2));
    }
    let part = (sampled / whole).min(1.0);
    if once == 0.0 || part == 1.0 {
        return distinct;
    }
    let unseen = once * once / (sampled / (sampled - 1.0) * 2.0 * twice + part / (1.0 - part) * once);
    (distinct + unseen).min(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flyweight::sample::{Product, schema};

    fn run(roles: &mut Roles, entities: u64, product: impl Fn(u64) -> Product) -> Vec<Split> {
        let hash = |n: u64| xxh3_64(&n.to_le_bytes());
        (0..entities)
            .filter(|n| Roles::wants(hash(*n), entities))
            .filter_map(|n| roles.observe(hash(n), &product(n).record(), entities))
            .collect()
    }

    fn shared(roles: &Roles) -> Vec<String> {
        let shared = |field: FieldRole| field.shared.then_some(field.field);
        roles.explain().fields.into_iter().filter_map(shared).collect()
    }

    #[test]
    fn co_occurring_fields_are_shared_and_unique_ones_are_not() {
        let mut roles = Roles::new(Arc::new(schema()));
        let changes = run(&mut roles, 100_000, |n| Product::of_state(n, n % 1_000));
        assert_eq!(changes.len(), 1, "one choice, no wavering");
        assert_eq!(shared(&roles), ["name", "description", "currency", "category", "brand", "attributes"]);
        let explanation = roles.explain();
        let distinct = explanation.distinct.unwrap();
        assert!((900..1_100).contains(&distinct), "{distinct}");
        assert!(explanation.bytes_per_entity.unwrap() < 20.0, "{explanation:?}");
    }

    #[test]
    fn sharing_stays_off_where_every_state_is_its_own() {
        let mut roles = Roles::new(Arc::new(schema()));
        assert_eq!(run(&mut roles, 20_000, Product::unique), []);
        assert!(shared(&roles).is_empty());
        assert!(
            roles.explain().fields[0].reason.contains("keeping it with each record saves"),
            "{:?}",
            roles.explain()
        );
    }

    #[test]
    fn sharing_is_switched_off_when_data_changes_and_not_before() {
        let mut roles = Roles::new(Arc::new(schema()));
        run(&mut roles, 20_000, |n| Product::of_state(n, n % 50));
        assert!(!shared(&roles).is_empty());
        assert_eq!(run(&mut roles, 100, Product::unique), [], "a few others change nothing");
        run(&mut roles, 20_000, Product::unique);
        assert!(shared(&roles).is_empty(), "{:?}", roles.explain());
    }

    /// Data between two choices that cost nearly the same: whichever was made first stands, however often the
    /// other is a little better.
    #[test]
    fn a_choice_does_not_waver_where_two_cost_nearly_the_same() {
        let mut roles = Roles::new(Arc::new(schema()));
        let mut changes = 0;
        for round in 0..20u64 {
            let brands = if round % 2 == 0 { 8_200 } else { 8_900 };
            let product = |n: u64| Product {
                brand: format!("{:02}", n % brands % 97),
                ..Product::of_state(n, n % brands)
            };
            changes += run(&mut roles, 40_000, product).len();
        }
        assert!(changes <= 1, "{changes} changes: {:?}", roles.explain());
    }

    #[test]
    fn what_a_choice_saves_is_told() {
        let mut roles = Roles::new(Arc::new(schema()));
        run(&mut roles, 100_000, |n| Product::of_state(n, n % 1_000));
        let explanation = roles.explain();
        let name = &explanation.fields[0];
        assert!(name.shared && name.bytes_saved.is_some_and(|saved| saved > 1_000_000), "{explanation:?}");
        assert!(
            explanation.fields.iter().all(|field| field.bytes_saved.is_some_and(|saved| saved >= 0)),
            "{explanation:?}"
        );
    }

    #[test]
    fn declared_roles_stand_and_encrypted_fields_are_never_shared() {
        let mut schema = schema();
        schema.fields[0].role = Role::Intrinsic;
        schema.fields[1].role = Role::Extrinsic;
        schema.fields[5].encrypted = true;
        let mut roles = Roles::new(Arc::new(schema));
        assert_eq!(shared(&roles), ["name"]);
        run(&mut roles, 20_000, |n| Product::of_state(n, n % 50));
        assert_eq!(shared(&roles), ["name", "currency", "category", "attributes"]);
        let explanation = roles.explain();
        assert_eq!(explanation.fields[1].reason, "declared Extrinsic");
        assert_eq!(explanation.fields[5].reason, "encrypted: never shared");
    }

    #[test]
    fn distinct_states_are_estimated() {
        // 1,024 drawn from 1,000 equally likely states meet each once 368 times and twice 188 times, in the
        // mean.
        let met = [vec![1; 368], vec![2; 188], vec![3; 63], vec![4; 17], vec![5; 4]].concat();
        let estimate = distinct_in_all(met.into_iter(), 1_024.0, 1e6);
        assert!((900.0..1_100.0).contains(&estimate), "{estimate}");
        assert_eq!(distinct_in_all([1; 100].into_iter(), 100.0, 100.0), 100.0);
        let unique = distinct_in_all([1; 1_000].into_iter(), 1_000.0, 1e6);
        assert!(unique > 9e5, "{unique}");
    }
}
