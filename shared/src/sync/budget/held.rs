//! What one process holds of a budget: calls that it took, its pace, and the provider's time.

use super::{AHEAD, Ask, LATE, Millis, SURE, Scope, Taken, pace};
use std::collections::VecDeque;

/// A clock that differs less from the provider's is right: the provider tells whole seconds.
const CLOCK_TOLERANCE: Millis = 2000;

/// What one process holds of one scope.
#[derive(Debug, Default)]
pub struct Held {
    pub who: String,
    calls: VecDeque<Millis>,
    back: Vec<Millis>,
    left: Vec<(usize, u32, Millis)>,
    seats: u32,
    began: Option<Millis>,
    busy: Option<Millis>,
    /// By how much the provider's clock is ahead of ours, once an answer was seen.
    ahead: Option<Millis>,
    /// When an answer was seen last, on our clock.
    seen: Millis,
}

/// What a process is thought to need from call to call before it was seen.
const BUSY_FIRST: Millis = 250;

impl Held {
    pub fn new(who: String) -> Held {
        Held {
            who,
            ..Held::default()
        }
    }

    /// The provider's time at our `now`.
    pub fn time(&self, now: Millis) -> Millis {
        now + self.ahead.unwrap_or(0)
    }

    /// When the process last made a call.
    pub fn began(&self) -> Option<Millis> {
        self.began
    }

    /// The process is done with its last call and wants to make the next.
    pub fn ready(&mut self, now: Millis) {
        let took = self.began.map(|began| now - began);
        // A long pause says nothing about how fast the process is, and neither does a clock that was set.
        if let Some(took) = took.filter(|took| (0..AHEAD).contains(took)) {
            self.busy = Some(self.busy.map_or(took, |busy| (busy * 3 + took) / 4));
        }
        self.began = self.began.filter(|began| *began <= now);
    }

    /// The moment at which the next call may begin, if one was taken that is still good.
    pub fn next(&mut self, scope: &Scope, now: Millis) -> Option<Millis> {
        let paced = self.began.unwrap_or(Millis::MIN / 2) + pace(scope, self.seats);
        while let Some(meant) = self.calls.pop_front() {
            let begins = meant.max(now).max(paced);
            // Whatever lies too far ahead was taken by a clock that has been set since.
            if begins <= meant + LATE && meant <= now + AHEAD + LATE {
                self.began = Some(begins);
                return Some(begins);
            }
            self.back.push(meant);
        }
        None
    }

    /// Whether a call was taken that is still good.
    pub fn holds(&self, now: Millis) -> bool {
        self.calls
            .iter()
            .any(|meant| (now - LATE..now + AHEAD + LATE).contains(meant))
    }

    /// The moment at which a call that was just taken by itself may begin.
    pub fn begin(&mut self, scope: &Scope, taken: &Taken, now: Millis) -> Millis {
        self.told();
        self.seats = taken.seats;
        let paced = self.began.unwrap_or(Millis::MIN / 2) + pace(scope, self.seats);
        let begins = paced.max(now);
        self.began = Some(begins);
        begins
    }

    pub fn ask<'a>(&'a self, path: &'a str, now: Millis) -> Ask<'a> {
        Ask {
            who: &self.who,
            path,
            now,
            began: self.began.unwrap_or(Millis::MIN / 2),
            busy: self.busy.unwrap_or(BUSY_FIRST),
            left: &self.left,
            back: &self.back,
            // A clock that was set since shows a long time or none.
            background: false,
            sure: self.ahead.is_some() && (0..SURE).contains(&(now - self.time(self.seen))),
        }
    }

    /// Keeps what was taken; what was given back is told.
    pub fn keep(&mut self, taken: Taken) {
        self.told();
        self.calls = taken.calls.into();
        self.seats = taken.seats;
    }

    fn told(&mut self) {
        self.back.clear();
        self.left.clear();
    }

    /// Forgets everything that was taken: the provider wants silence.
    pub fn drop_calls(&mut self) {
        self.back.extend(self.calls.drain(..));
    }

    /// Learns the provider's clock from the `Date` of an answer (RFC 9110 §6.6.1) to a call that lasted
    /// from `sent` to `came` on our clock.
    pub fn see_clock(&mut self, date: Option<Millis>, sent: Millis, came: Millis) {
        self.seen = came;
        let Some(date) = date else {
            self.ahead = self.ahead.or(Some(0));
            return;
        };
        let right = sent - CLOCK_TOLERANCE..=came + CLOCK_TOLERANCE;
        // The middle of the second that is told, and of the call.
        let ahead = date + 500 - came.midpoint(sent.min(came));
        let ahead = if right.contains(&date) { 0 } else { ahead };
        // The whole seconds of a header would make a corrected clock jump to and fro.
        if self
            .ahead
            .is_none_or(|held| (held - ahead).abs() > CLOCK_TOLERANCE)
        {
            self.ahead = Some(ahead);
        }
    }

    /// Learns how many calls the provider says are left in the window at `index`.
    pub fn see_left(&mut self, index: usize, left: u32, now: Millis) {
        self.left.retain(|(other, _, _)| *other != index);
        self.left.push((index, left, now));
    }
}
