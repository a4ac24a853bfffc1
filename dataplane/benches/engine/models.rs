//! Plain models of the policies, as their papers tell them: what the memory tier is compared with, in its
//! tests at a small size and in the bench at full size.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use engine::memory::Policy;

/// A cache of keys.
pub trait Model {
    /// Asks for a key, which comes in where it was not there. Says whether it was.
    fn ask(&mut self, key: u64) -> bool;
}

/// The model of a policy, for so many keys.
pub fn model(policy: Policy, capacity: usize) -> Box<dyn Model> {
    match policy {
        Policy::Lru => Box::new(Lru { capacity, time: 0, by_time: BTreeMap::new(), times: HashMap::new() }),
        Policy::Fifo => Box::new(Fifo { capacity, queue: VecDeque::new(), held: HashSet::new() }),
        Policy::Lfu => Box::new(Lfu { capacity, time: 0, order: BTreeSet::new(), held: HashMap::new() }),
        Policy::Sieve => {
            Box::new(Sieve { capacity, time: 0, hand: 0, queue: BTreeMap::new(), held: HashMap::new() })
        }
        Policy::S3Fifo => Box::new(S3Fifo {
            capacity,
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: Ghosts::default(),
            reads: HashMap::new(),
        }),
    }
}

struct Lru {
    capacity: usize,
    time: u64,
    by_time: BTreeMap<u64, u64>,
    times: HashMap<u64, u64>,
}

impl Model for Lru {
    fn ask(&mut self, key: u64) -> bool {
        self.time += 1;
        let before = self.times.insert(key, self.time);
        before.map(|before| self.by_time.remove(&before));
        self.by_time.insert(self.time, key);
        if self.times.len() > self.capacity
            && let Some((_, oldest)) = self.by_time.pop_first()
        {
            self.times.remove(&oldest);
        }
        before.is_some()
    }
}

struct Fifo {
    capacity: usize,
    queue: VecDeque<u64>,
    held: HashSet<u64>,
}

impl Model for Fifo {
    fn ask(&mut self, key: u64) -> bool {
        if !self.held.insert(key) {
            return true;
        }
        self.queue.push_back(key);
        if self.queue.len() > self.capacity
            && let Some(oldest) = self.queue.pop_front()
        {
            self.held.remove(&oldest);
        }
        false
    }
}

struct Lfu {
    capacity: usize,
    time: u64,
    order: BTreeSet<(u64, u64, u64)>,
    held: HashMap<u64, (u64, u64)>,
}

impl Model for Lfu {
    fn ask(&mut self, key: u64) -> bool {
        self.time += 1;
        let before = self.held.get(&key).copied();
        if let Some((count, time)) = before {
            self.order.remove(&(count, time, key));
        } else if self.held.len() == self.capacity
            && let Some((_, _, least)) = self.order.pop_first()
        {
            self.held.remove(&least);
        }
        let count = before.map_or(0, |(count, _)| count + 1);
        self.held.insert(key, (count, self.time));
        self.order.insert((count, self.time, key));
        before.is_some()
    }
}

struct Sieve {
    capacity: usize,
    time: u64,
    hand: u64,
    queue: BTreeMap<u64, (u64, bool)>,
    held: HashMap<u64, u64>,
}

impl Model for Sieve {
    fn ask(&mut self, key: u64) -> bool {
        if let Some((_, visited)) = self.held.get(&key).and_then(|time| self.queue.get_mut(time)) {
            *visited = true;
            return true;
        }
        while self.held.len() >= self.capacity {
            let at = self.queue.range(self.hand..).next().or(self.queue.iter().next());
            let Some((time, (key, visited))) = at.map(|(time, node)| (*time, *node)) else { break };
            self.hand = time + 1;
            if visited {
                self.queue.insert(time, (key, false));
            } else {
                self.queue.remove(&time);
                self.held.remove(&key);
            }
        }
        self.time += 1;
        self.queue.insert(self.time, (key, false));
        self.held.insert(key, self.time);
        false
    }
}

struct S3Fifo {
    capacity: usize,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghosts: Ghosts,
    reads: HashMap<u64, u8>,
}

impl Model for S3Fifo {
    fn ask(&mut self, key: u64) -> bool {
        if let Some(reads) = self.reads.get_mut(&key) {
            *reads = 3.min(*reads + 1);
            return true;
        }
        while self.reads.len() >= self.capacity && self.evict().is_some() {}
        let queue = if self.ghosts.take(key) { &mut self.main } else { &mut self.small };
        queue.push_back(key);
        self.reads.insert(key, 0);
        false
    }
}

impl S3Fifo {
    fn evict(&mut self) -> Option<()> {
        let small_max = self.capacity / 10;
        if self.small.len() >= small_max {
            let key = self.small.pop_front()?;
            if self.reads.get(&key).is_some_and(|reads| *reads > 1) {
                self.reads.insert(key, 0);
                self.main.push_back(key);
            } else {
                self.reads.remove(&key);
                self.ghosts.add(key, self.capacity - small_max);
            }
            return Some(());
        }
        let key = self.main.pop_front()?;
        match self.reads.remove(&key) {
            Some(0) | None => {}
            Some(reads) => {
                self.reads.insert(key, reads - 1);
                self.main.push_back(key);
            }
        }
        Some(())
    }
}

/// The keys that left last.
#[derive(Default)]
struct Ghosts {
    time: u64,
    by_time: BTreeMap<u64, u64>,
    times: HashMap<u64, u64>,
}

impl Ghosts {
    fn add(&mut self, key: u64, most: usize) {
        self.time += 1;
        self.by_time.insert(self.time, key);
        self.times.insert(key, self.time);
        if self.by_time.len() > most
            && let Some((_, oldest)) = self.by_time.pop_first()
        {
            self.times.remove(&oldest);
        }
    }

    fn take(&mut self, key: u64) -> bool {
        let time = self.times.remove(&key);
        time.map(|time| self.by_time.remove(&time)).is_some()
    }
}
