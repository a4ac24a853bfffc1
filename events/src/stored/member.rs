//! A member of a group that shares out a log: it has some of the parts by claims, takes their entries in
//! order, and moves a part's position only over what was seen to.
//!
//! Members agree without asking each other: each reads all claims, counts the members whose own claim lasts,
//! and has as many parts as that leaves it. One that ends gives its parts up; the parts of one that is gone
//! are free after the lease, and what it had not seen to comes again, to another.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use model::{
    ids,
    log::{Claim, Entry, EventLog, Group, LogError, PARTS},
};
use runtime::supervisor;

/// How long a claim lasts: as long as Kafka waits for a member of a group.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often in a lease claims are looked at, and positions noted.
const TENDED: u32 = 10;

/// A member. Nothing is taken by it any more once it left.
pub struct Member {
    log: Arc<dyn EventLog>,
    seat: Seat,
    owner: String,
    /// The part that stands for the member itself.
    itself: i64,
    state: Mutex<State>,
    /// One takes at a time.
    turn: tokio::sync::Mutex<()>,
    /// One notes at a time, so that no position goes back.
    noting: tokio::sync::Mutex<()>,
    /// The newest number that was seen in the log.
    head: watch::Receiver<u64>,
    /// Parts came or went, or entries came back.
    changed: watch::Sender<()>,
    left: CancellationToken,
}

/// Which group of which log.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The log.
    pub log: String,
    /// The group.
    pub group: String,
    /// How long claims last.
    pub lease: Duration,
}

/// An entry that was taken, to be seen to or given back.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its number.
    pub number: u64,
    /// The entry.
    pub entry: Entry,
    /// In which time of having its part it was taken.
    time: u64,
}

#[derive(Default)]
struct State {
    parts: BTreeMap<i64, Part>,
    /// How often a part was claimed.
    times: u64,
    /// Until when the claims surely last.
    until: Option<Instant>,
    returned: VecDeque<Taken>,
}

struct Part {
    /// Tells this time of having the part from others.
    time: u64,
    /// Everything up to this number was taken.
    taken: u64,
    /// What was taken and is not seen to.
    open: BTreeSet<u64>,
    /// The position that was noted last.
    noted: u64,
}

impl Part {
    fn position(&self) -> u64 {
        self.open.first().map_or(self.taken, |first| first - 1)
    }
}

impl State {
    fn held(&mut self, entry: &Taken) -> Option<&mut Part> {
        self.parts.get_mut(&entry.entry.part).filter(|part| part.time == entry.time)
    }

    fn last(&self) -> bool {
        self.until.is_some_and(|until| until > Instant::now())
    }

    fn positions(&self) -> Vec<(i64, u64)> {
        self.parts.iter().map(|(part, held)| (*part, held.position())).collect()
    }
}

impl Member {
    /// Joins a group. `head` tells the newest number of the log.
    pub fn join(log: Arc<dyn EventLog>, seat: Seat, head: watch::Receiver<u64>) -> Arc<Self> {
        let member = Arc::new(Self {
            log,
            seat,
            owner: ids::next().to_string(),
            itself: -1 - i64::from(rand::random::<u32>()),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            noting: tokio::sync::Mutex::default(),
            head,
            changed: watch::channel(()).0,
            left: CancellationToken::new(),
        });
        let tended = member.clone();
        supervisor::GROUP_MEMBER.spawn(move || {
            let member = tended.clone();
            async move { member.tend().await }
        });
        member
    }

    /// Gives all parts up, in the background.
    pub fn leave(&self) {
        self.left.cancel();
    }

    /// Takes up to `max` entries that nobody has; none where there are none now.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn take(&self, max: usize) -> Result<Vec<Taken>, LogError> {
        let _turn = self.turn.lock().await;
        let back = self.take_back(max);
        if !back.is_empty() {
            return Ok(back);
        }
        let (parts, from) = {
            let state = self.state.lock();
            let Some(least) = state.parts.values().map(|part| part.taken).min().filter(|_| state.last())
            else {
                return Ok(Vec::new());
            };
            let parts: Vec<(i64, u64)> = state.parts.iter().map(|(part, held)| (*part, held.time)).collect();
            (parts, least + 1)
        };
        // asked before the page: all up to there is in it, or in the next
        let head = *self.head.borrow();
        if head < from {
            return Ok(Vec::new());
        }
        let numbers: Vec<i64> = parts.iter().map(|(part, _)| *part).collect();
        let page = self.log.page(&self.seat.log, from, Some(&numbers), max).await?;
        let last = page.entries.last().map_or(0, |last| last.number);
        let reached = if page.more { last } else { head.max(last) };
        let (mut taken, mut state) = (Vec::with_capacity(page.entries.len()), self.state.lock());
        for numbered in page.entries {
            let time =
                parts.iter().find(|(part, _)| *part == numbered.entry.part).map_or(0, |(_, time)| *time);
            let one = Taken { number: numbered.number, entry: numbered.entry, time };
            if let Some(part) = state.held(&one).filter(|part| part.taken < one.number) {
                part.taken = one.number;
                part.open.insert(one.number);
                taken.push(one);
            }
        }
        for (part, time) in parts {
            if let Some(held) = state.parts.get_mut(&part).filter(|held| held.time == time) {
                held.taken = held.taken.max(reached);
            }
        }
        Ok(taken)
    }

    /// What was given back.
    fn take_back(&self, max: usize) -> Vec<Taken> {
        let mut state = self.state.lock();
        let mut back = Vec::new();
        while back.len() < max
            && state.last()
            && let Some(one) = state.returned.pop_front()
        {
            if state.held(&one).is_some() {
                back.push(one);
            }
        }
        back
    }

    /// Waits until there may be something to take.
    ///
    /// # Errors
    /// Nobody looks at the log any more.
    pub async fn wait(&self) -> Result<(), LogError> {
        let (mut head, mut changed) = (self.head.clone(), self.changed.subscribe());
        loop {
            let newest = *head.borrow_and_update();
            {
                let state = self.state.lock();
                let behind = state.parts.values().any(|part| part.taken < newest);
                if state.last() && (behind || !state.returned.is_empty()) {
                    return Ok(());
                }
            }
            let closed = tokio::select! {
                moved = head.changed() => moved.is_err(),
                parts = changed.changed() => parts.is_err(),
            };
            if closed {
                return Err(LogError::Unavailable("the log is closed".to_owned()));
            }
        }
    }

    /// Whether the part of an entry is still the member's, as it was when the entry was taken.
    pub fn holds(&self, entry: &Taken) -> bool {
        let mut state = self.state.lock();
        state.last() && state.held(entry).is_some()
    }

    /// An entry is seen to.
    pub fn seen_to(&self, entry: &Taken) {
        if let Some(part) = self.state.lock().held(entry) {
            part.open.remove(&entry.number);
        }
    }

    /// Entries that were not seen to are to be taken by another reader.
    pub fn give_back(&self, entries: Vec<Taken>) {
        self.state.lock().returned.extend(entries);
        self.changed.send_replace(());
    }

    /// Notes the positions of all parts, and makes their claims last.
    ///
    /// # Errors
    /// It is not known whether they are noted.
    pub async fn note(&self) -> Result<(), LogError> {
        let _noting = self.noting.lock().await;
        let (mut positions, times) = {
            let state = self.state.lock();
            let times: Vec<(i64, u64)> = state.parts.iter().map(|(part, held)| (*part, held.time)).collect();
            (state.positions(), times)
        };
        positions.push((self.itself, 0));
        let until = Instant::now() + self.seat.lease;
        let kept = self.log.keep(self.group(), &self.owner, self.seat.lease, &positions).await?;
        let mut state = self.state.lock();
        for ((part, position), (_, time)) in positions.iter().zip(times) {
            match state.parts.get_mut(part).filter(|held| held.time == time) {
                Some(held) if kept.contains(part) => held.noted = *position,
                Some(_) => _ = state.parts.remove(part),
                None => {}
            }
        }
        state.until = Some(until);
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    fn group(&self) -> Group<'_> {
        Group { log: &self.seat.log, name: &self.seat.group }
    }

    /// Looks after the claims until the member leaves.
    async fn tend(&self) {
        let mut lost = false;
        while !self.left.is_cancelled() {
            match self.share().await {
                Ok(()) => lost = false,
                // one line for an outage
                Err(error) if !std::mem::replace(&mut lost, true) => {
                    tracing::debug!(group = self.seat.group, %error, "a log cannot be shared out now");
                }
                Err(_) => {}
            }
            self.left.run_until_cancelled(tokio::time::sleep(self.seat.lease / TENDED)).await;
        }
        let _noting = self.noting.lock().await;
        let mut positions = self.state.lock().positions();
        self.state.lock().parts.clear();
        positions.push((self.itself, 0));
        if let Err(error) = self.log.release(self.group(), &self.owner, &positions).await {
            tracing::debug!(group = self.seat.group, %error, "claims were not given up: they end with their lease");
        }
    }

    /// Has as many parts as it should.
    async fn share(&self) -> Result<(), LogError> {
        self.check().await?;
        let (moved, left) = {
            let state = self.state.lock();
            let moved = state.parts.values().any(|part| part.position() != part.noted);
            (moved, state.until.map(|until| until.saturating_duration_since(Instant::now())))
        };
        if left.is_some() && (moved || left < Some(self.seat.lease / 5 * 3)) {
            self.note().await?;
        }
        let claims = self.log.claims(self.group()).await?;
        if !claims.iter().any(|claim| claim.part == self.itself && claim.lasts) {
            let until = Instant::now() + self.seat.lease;
            self.log.claim(self.group(), self.itself, &self.owner, self.seat.lease).await?;
            self.state.lock().until.get_or_insert(until);
        }
        let wanted = wanted(&claims, self.itself);
        self.give_up(wanted).await?;
        self.claim(&claims, wanted).await
    }

    /// Gives up what is more than wanted.
    async fn give_up(&self, wanted: usize) -> Result<(), LogError> {
        let _noting = self.noting.lock().await;
        let too_many: Vec<(i64, u64)> = {
            let mut state = self.state.lock();
            let mut gone = Vec::new();
            while state.parts.len() > wanted
                && let Some((part, held)) = state.parts.pop_last()
            {
                gone.push((part, held.position()));
            }
            gone
        };
        match too_many.is_empty() {
            true => Ok(()),
            false => self.log.release(self.group(), &self.owner, &too_many).await,
        }
    }

    /// Claims free parts until it has as many as wanted.
    async fn claim(&self, claims: &[Claim], wanted: usize) -> Result<(), LogError> {
        let is_free = |part: &i64| {
            !claims.iter().any(|claim| claim.part == *part && claim.lasts && claim.owner != self.owner)
        };
        for part in (0..PARTS).filter(is_free) {
            let missing = {
                let state = self.state.lock();
                state.parts.len() < wanted && !state.parts.contains_key(&part)
            };
            if missing
                && let Some(position) =
                    self.log.claim(self.group(), part, &self.owner, self.seat.lease).await?
            {
                self.begin(part, position).await?;
            }
        }
        Ok(())
    }

    /// Begins with a part where the group was.
    async fn begin(&self, part: i64, position: u64) -> Result<(), LogError> {
        let log = &self.seat.log;
        let newest = self.log.newest(log).await?.map_or(0, |newest| newest.number);
        let kept = self.log.oldest(log).await?.saturating_sub(1);
        // a position of another log that had this name says nothing of this one
        let at = if position > newest { kept } else { position.max(kept) };
        if at > position && position > 0 {
            let (group, events) = (&self.seat.group, at - position);
            tracing::error!(
                group,
                part,
                events,
                "a group was behind by more than the log keeps: those are gone"
            );
        }
        let mut state = self.state.lock();
        state.times += 1;
        let held = Part { time: state.times, taken: at, open: BTreeSet::new(), noted: position };
        state.parts.insert(part, held);
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    /// Whether the log still has what was not taken yet. Where it is another by now, all begins anew.
    async fn check(&self) -> Result<(), LogError> {
        let taken: Vec<u64> = self.state.lock().parts.values().map(|part| part.taken).collect();
        let (Some(least), Some(most)) = (taken.iter().min().copied(), taken.iter().max().copied()) else {
            return Ok(());
        };
        let log = &self.seat.log;
        let newest = self.log.newest(log).await?.map_or(0, |newest| newest.number);
        let kept = self.log.oldest(log).await?.saturating_sub(1);
        if most > newest || least < kept {
            tracing::error!(group = self.seat.group, least, most, kept, newest, "the log was cut");
            // with their positions as they were noted
            self.state.lock().parts.clear();
        }
        Ok(())
    }
}

/// How many parts a member should have, among those whose claims last and itself.
fn wanted(claims: &[Claim], itself: i64) -> usize {
    let members = claims.iter().filter(|claim| claim.part < 0 && claim.lasts).map(|claim| claim.part);
    let members: BTreeSet<i64> = members.chain([itself]).collect();
    let (all, rank) = (PARTS as usize, members.range(..itself).count());
    all / members.len() + usize::from(rank < all % members.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_wanted_once() {
        for members in [1, 2, 3, 5, 16, 20] {
            let claim = |part: i64| Claim { part, owner: part.to_string(), lasts: true, position: 0 };
            let claims: Vec<Claim> = (1..=members).map(|member| claim(-member)).chain([claim(3)]).collect();
            let each: Vec<usize> = (1..=members).map(|member| wanted(&claims, -member)).collect();
            assert_eq!(each.iter().sum::<usize>(), PARTS as usize, "{each:?}");
            assert!(each.iter().max().unwrap() - each.iter().min().unwrap() <= 1, "{each:?}");
        }
        let gone = Claim { part: -9, owner: String::new(), lasts: false, position: 0 };
        assert_eq!(wanted(&[gone], -1), PARTS as usize);
    }
}
