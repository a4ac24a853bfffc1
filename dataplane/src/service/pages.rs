//! Pages that were read, kept as they were sent, for as long as nothing changed in their collection.
//!
//! A page belongs to the generation in which its reading began. Each commit of this process moves the
//! generation on before it is answered, and each event of another replica's change when it arrives: from then
//! on no page of before is served. What events may miss, the time to live ends.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;

/// The longest that a page is served.
const TTL: Duration = Duration::from_secs(5);
/// The most bytes of the pages of one collection.
const BYTES_MAX: usize = 16 << 20;

/// The pages of one collection.
#[derive(Default)]
pub struct Pages {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    generation: u64,
    bytes: usize,
    pages: HashMap<String, (KeptPage, Instant)>,
}

/// A page as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPage {
    /// Its body.
    pub body: Bytes,
    /// Which records at which versions it shows, as the gateway is told.
    pub about: Bytes,
}

impl KeptPage {
    fn len(&self) -> usize {
        self.body.len() + self.about.len()
    }
}

impl Pages {
    /// The page of a query, if it was read in this generation.
    pub fn get(&self, query: &str, generation: u64) -> Option<KeptPage> {
        let kept = self.kept.lock();
        let (page, at) = kept.pages.get(query).filter(|_| kept.generation == generation)?;
        (at.elapsed() < TTL).then(|| page.clone())
    }

    /// Keeps a page whose reading began in a generation.
    pub fn put(&self, query: String, generation: u64, page: &KeptPage) {
        let mut kept = self.kept.lock();
        if kept.generation > generation {
            return;
        }
        let size = query.len() + page.len();
        if kept.generation < generation || kept.bytes + size > BYTES_MAX {
            *kept = Kept { generation, ..Kept::default() };
        }
        if size > BYTES_MAX / 4 {
            return;
        }
        kept.bytes += size;
        if let Some((old, _)) = kept.pages.insert(query.clone(), (page.clone(), Instant::now())) {
            kept.bytes -= query.len() + old.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(body: Bytes) -> KeptPage {
        KeptPage { body, about: Bytes::from_static(b"1:2") }
    }

    #[test]
    fn a_page_lives_as_long_as_its_generation() {
        let (pages, body) = (Pages::default(), page(Bytes::from_static(b"page")));
        pages.put("q".into(), 3, &body);
        assert_eq!(
            (pages.get("q", 3), pages.get("q", 4), pages.get("r", 3)),
            (Some(body.clone()), None, None)
        );
        pages.put("q".into(), 4, &body);
        // a slow read of before comes too late
        pages.put("r".into(), 3, &body);
        assert_eq!((pages.get("q", 3), pages.get("r", 4), pages.get("q", 4)), (None, None, Some(body)));
    }

    #[test]
    fn pages_take_no_more_than_they_may() {
        let (pages, body) = (Pages::default(), page(Bytes::from(vec![0; 1 << 20])));
        for index in 0..100 {
            pages.put(format!("q{index}"), 1, &body);
            assert!(pages.kept.lock().bytes <= BYTES_MAX);
        }
        pages.put("q99".into(), 1, &body);
        let kept = pages.kept.lock();
        assert_eq!(
            kept.bytes,
            kept.pages.iter().map(|(query, (page, _))| query.len() + page.len()).sum::<usize>()
        );
    }
}
