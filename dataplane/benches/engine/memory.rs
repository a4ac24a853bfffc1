//! Resident bytes per product and nanoseconds per get, each row measured in a process of its own.

use std::{env, path::Path, process::Command, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use model::key::Key;

use super::{
    plot::{Plot, Series},
    products::{BODY, OF_A_STATE, key, random, record, record_of, resident, schema, short_key, zipf_rank},
    servers::Server,
    shelves::{SHORT_KEYS, Shelf, shelf},
};

const MILLION: u64 = 1_000_000;
/// The most resident bytes of a product in the memory tier.
const BYTES_MAX: f64 = 64.0;
const GETS: u64 = 2_000_000;
/// Gets that are timed together: the figure is the median, so that what the machine does beside them counts
/// little.
const BATCH: u64 = 1_000;
const SIZES: [u64; 4] = [10_000, 100_000, MILLION, 5 * MILLION];
const PIPELINED: u64 = 1_000;
const WARM: u64 = 2_000;

/// What a row says.
struct Row {
    name: String,
    entities: u64,
    resident: f64,
    counted: Option<f64>,
    uniform_ns: Option<f64>,
    zipf_ns: Option<f64>,
}

/// The table of what a million products take.
pub fn compare() -> Result<()> {
    println!(
        "\n## Memory: {MILLION} products, {} distinct states, {BODY} bytes of JSON each, UUID keys\n",
        MILLION / OF_A_STATE
    );
    header();
    redis()?.print();
    for name in ["hashmap-string", "hashmap-bytes", "moka", "quick_cache"] {
        row(name, MILLION)?.print();
    }
    let ours = ["auto", "declared", SHORT_KEYS].map(|name| row(name, MILLION));
    let ours = ours.into_iter().collect::<Result<Vec<_>>>()?;
    ours.iter().for_each(Row::print);
    ensure!(ours.iter().all(|row| row.resident <= BYTES_MAX), "a product takes more than {BYTES_MAX} bytes");
    Ok(())
}

/// The table of how costs grow with the number of products, and its picture.
pub fn growth(picture: &Path) -> Result<()> {
    println!("\n## Growth: more and more products, {OF_A_STATE} of each shared state\n");
    header();
    let mut rows = Vec::new();
    let mut maps = Vec::new();
    for entities in SIZES {
        for (shelf, rows) in [("declared", &mut rows), ("hashmap-bytes", &mut maps)] {
            let row = row(shelf, entities)?;
            row.print();
            rows.push(row);
        }
    }
    let of = |rows: &[Row], of: &dyn Fn(&Row) -> f64| {
        rows.iter().map(|row| (row.entities as f64, of(row))).collect()
    };
    let points = |figure: &dyn Fn(&Row) -> f64| of(&rows, figure);
    let uniform_us = |row: &Row| row.uniform_ns.unwrap_or(0.0) / 1e3;
    let plot = Plot {
        title: "Cost per product as their number grows",
        x_title: "products in the memory tier",
        panels: vec![
            ("resident bytes each", vec![Series { name: "Flyweight", points: points(&|row| row.resident) }]),
            (
                "µs per hit",
                vec![
                    Series { name: "any key", points: points(&uniform_us) },
                    Series { name: "Zipf 0.99", points: points(&|row| row.zipf_ns.unwrap_or(0.0) / 1e3) },
                    Series { name: "HashMap", points: of(&maps, &uniform_us) },
                ],
            ),
        ],
    };
    std::fs::write(picture, plot.to_svg()).with_context(|| format!("{} cannot be written", picture.display()))
}

/// Measures one row in this process, and prints its figures for the process that asked.
pub fn measure(name: &str, entities: u64) -> Result<()> {
    // The code, buffers and arenas that a first entry needs are not the shelf's.
    let (title, mut warm) = shelf(name)?;
    let key_of = if name == SHORT_KEYS { short_key } else { key };
    (0..WARM).try_for_each(|n| record(n, WARM).map(|record| warm.put(record)))?;
    let before = resident("self")?;
    let (_, mut kept) = shelf(name)?;
    (0..entities).try_for_each(|n| record_of(n, entities, key_of(n)?).map(|record| kept.put(record)))?;
    let each = (resident("self")? - before) as f64 / entities as f64;
    let counted = kept.counted().map_or(f64::NAN, |bytes| bytes as f64 / entities as f64);
    let uniform = time_of_gets(kept.as_ref(), |drawn| key_of(drawn % entities))?;
    let zipf = time_of_gets(kept.as_ref(), |drawn| key_of(random(zipf_rank(drawn, entities)) % entities))?;
    println!("{title}\t{entities}\t{each}\t{counted}\t{uniform}\t{zipf}");
    Ok(())
}

fn row(name: &str, entities: u64) -> Result<Row> {
    let output = Command::new(env::current_exe()?).args(["--row", name, &entities.to_string()]).output()?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said = String::from_utf8(output.stdout)?;
    let fields: Vec<&str> = said.trim_end().split('\t').collect();
    let [title, _, each, counted, uniform, zipf] = fields[..] else { bail!("{name} said {said:?}") };
    Ok(Row {
        name: title.to_owned(),
        entities,
        resident: each.parse()?,
        counted: Some(counted.parse()?).filter(|counted: &f64| !counted.is_nan()),
        uniform_ns: Some(uniform.parse()?),
        zipf_ns: Some(zipf.parse()?),
    })
}

/// The same products as strings in a Redis server of its own.
fn redis() -> Result<Row> {
    let server = Server::real("redis")?;
    let mut connection = redis::Client::open(server.url("redis"))?.get_connection()?;
    let (schema, before) = (schema(false), resident(&server.id())?);
    for batch in 0..MILLION / PIPELINED {
        let mut pipe = redis::pipe();
        for n in batch * PIPELINED..(batch + 1) * PIPELINED {
            let record = record(n, MILLION)?;
            pipe.set(record.key.as_str(), record.to_json(&schema)).ignore();
        }
        pipe.exec(&mut connection)?;
    }
    let each = (resident(&server.id())? - before) as f64 / MILLION as f64;
    let name = "Redis strings of JSON".to_owned();
    Ok(Row { name, entities: MILLION, resident: each, counted: None, uniform_ns: None, zipf_ns: None })
}

/// Nanoseconds of a get, of keys that are chosen by random numbers.
fn time_of_gets(shelf: &dyn Shelf, choose: impl Fn(u64) -> Result<Key>) -> Result<f64> {
    let mut times = Vec::new();
    for batch in 0..GETS / BATCH {
        let keys = (batch * BATCH..(batch + 1) * BATCH).map(|n| choose(random(n + 1)));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let lens: usize = keys.iter().map(|key| shelf.get(key).unwrap_or(0)).sum();
        times.push(start.elapsed());
        if lens != keys.len() * BODY {
            bail!("{lens} bytes were served instead of {}", keys.len() * BODY);
        }
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e9 / BATCH as f64)
}

fn header() {
    println!(
        "| kept in | products | resident bytes each | counted bytes each | ns per get, any key | ns per get, Zipf 0.99 |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
}

impl Row {
    fn print(&self) {
        let Self { name, entities, resident, counted, uniform_ns, zipf_ns } = self;
        let or_dash = |figure: &Option<f64>, digits| {
            figure.map_or("–".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        println!(
            "| {name} | {entities} | {resident:.1} | {} | {} | {} |",
            or_dash(counted, 1),
            or_dash(uniform_ns, 0),
            or_dash(zipf_ns, 0)
        );
    }
}
