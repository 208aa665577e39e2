//! What may be called, and when: the limits of a provider as a budget that all processes share. Values
//! go in and values come out; times are milliseconds of Unix time on the provider's clock.
//!
//! A process takes a handful of calls at a time out of a [`Row`] that stands in the store, each with
//! the moment for which it is meant, and makes them within [`LATE`] of that moment or gives them back
//! with its next request. Calls are counted in slices of a window, and a window counts one slice and
//! `LATE` more than the provider's does. So whatever the provider calls a minute (its own clock's, or
//! the last sixty seconds), no minute of its holds more calls than are allowed.
//!
//! A seat is the right to make one call at a time. Where the provider limits the calls of a second,
//! each seat also keeps a pace, because a second is too short to be shared out over a network. Seats
//! end by themselves, so a process that dies takes its seat and its calls along for some seconds only.

mod held;

pub use held::Held;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Milliseconds of Unix time.
pub type Millis = i64;

/// How much later than meant a call may begin.
pub const LATE: Millis = 500;
/// How far ahead calls are taken.
const AHEAD: Millis = 3000;
/// Most calls that are taken at a time.
const CALLS_MAX: usize = 8;
/// Most processes at one connection, so that others are left for other merchants.
const PROCESSES_MAX: usize = 5;
/// What stands behind the name of a process where its seats are kept that it has left.
const LEFT: &str = "/left";
/// How long a seat is kept free after the last call that it was taken for could begin: for that call
/// to end, and for the pace of whoever comes next.
const SEAT_REST: Millis = 2500;
/// Slices of a window.
const SLICES: i64 = 120;
/// What works in the background leaves one call in so many of each window to everything else.
const LIVE_SHARE: u32 = 4;
/// Calls for which those who are sent away together are counted: somewhat fewer than there are messages
/// in a batch, because some batches are smaller, and too few at hand would be calls that nobody makes.
/// Of calls that carry several things, one is counted.
const TURN_CALLS: u32 = 7;
/// Messages that come back together: about as many as go in one call where calls carry several things.
const TURN_SIZE: usize = 30;
/// How long few messages wait for company, while calls that carry several things are running out.
const GATHERING: Millis = 3000;
/// So many are no longer few.
const FEW: usize = TURN_SIZE / 2;
/// For how long nobody waits for company after it did not come.
const ALONE: Millis = 60_000;
/// So many of a window's calls with several things are for whoever comes, however little there is to
/// carry: a quarter.
const FREELY: u32 = 4;
/// The longest way to send a message, as SQS allows.
pub const AWAY_MAX: Millis = 900_000;
/// The longest for a process whose clock may be wrong.
const AWAY_UNSURE_MAX: Millis = 60_000;
/// The shortest.
const AWAY_MIN: Millis = 1000;
/// How long calls stop after a refusal that names no time, and that is about the calls at one moment.
const PAUSE_MOMENT: Millis = 2000;
/// The longest pause, however long a provider asks for.
const PAUSE_MAX: Millis = 86_400_000;
/// How long after an answer a process is sure of the provider's time.
const SURE: Millis = 15_000;

/// So many calls in so much time.
#[derive(Debug)]
pub struct Window {
    pub calls: u32,
    pub span: TimeDelta,
    /// Only calls whose path ends so count: those that carry several things.
    pub only: Option<&'static str>,
    /// The header in which the provider tells how many are left.
    pub left: Option<&'static str>,
}

/// What the provider counts together: the calls for one account, or those of the whole application.
#[derive(Debug)]
pub struct Scope {
    pub windows: &'static [Window],
    /// How many processes may be at it at once, each with one call at a time.
    pub seats: Option<u32>,
    /// The least time from call to call on one seat.
    pub pace: Option<TimeDelta>,
}

/// The limits of a provider.
#[derive(Debug)]
pub struct Limits {
    pub connection: Scope,
    pub app: Scope,
    /// How long calls stop after a refusal that does not say how long.
    pub pause: TimeDelta,
    /// The header that tells which limit was met.
    pub problem: Option<&'static str>,
}

impl Scope {
    pub const FREE: Scope = Scope {
        windows: &[],
        seats: None,
        pace: None,
    };

    /// Whether calls to `path` have a window of their own. Such calls are taken one by one.
    pub fn is_special(&self, path: &str) -> bool {
        let mut own = self.windows.iter().filter(|window| window.only.is_some());
        own.any(|window| window.counts(path))
    }

    /// The end of the path of calls that carry several things, where these have a window of their own.
    pub fn several(&self) -> Option<&'static str> {
        self.windows.iter().find_map(|window| window.only)
    }
}

impl Limits {
    /// For a provider of which nothing is asked yet but who it is.
    pub const NONE: Limits = Limits {
        connection: Scope::FREE,
        app: Scope::FREE,
        pause: TimeDelta::minutes(1),
        problem: None,
    };
}

impl Window {
    fn slice_length(&self) -> Millis {
        (self.span.num_milliseconds() / SLICES).max(1)
    }

    fn slice(&self, at: Millis) -> i64 {
        at.div_euclid(self.slice_length())
    }

    /// The first slice whose calls may still be in the provider's window at the end of which `slice` is.
    fn first(&self, slice: i64) -> i64 {
        let at = slice * self.slice_length() - self.span.num_milliseconds() - LATE;
        self.slice(at)
    }

    fn counts(&self, path: &str) -> bool {
        self.only.is_none_or(|end| path.ends_with(end))
    }
}

/// What all processes know together about one scope.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// For each window the calls that were taken, by slice.
    used: Vec<BTreeMap<i64, u32>>,
    /// For each process its seats and until when it may begin calls on them.
    seats: BTreeMap<String, (u32, Millis)>,
    /// Until when, and for how long in all, the provider has asked for silence.
    paused: (Millis, Millis),
    /// When the messages that were sent away last come back, and how many they are.
    turn: Millis,
    turn_size: usize,
    /// When somebody with few messages last began, or until when nobody waits for company; and how many
    /// messages were sent away since then to have some.
    #[serde(default)]
    began: Millis,
    #[serde(default)]
    gathering: usize,
}

/// What one process wants.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub who: &'a str,
    pub path: &'a str,
    pub now: Millis,
    /// When this process began its last call.
    pub began: Millis,
    /// The time that this process takes from the beginning of one call to the next.
    pub busy: Millis,
    /// What the provider said was left: by window, with the time of its answer.
    pub left: &'a [(usize, u32, Millis)],
    /// Calls that were taken and not made, by the moment for which they were meant.
    pub back: &'a [Millis],
    /// Whether the process knows the provider's clock. If not, it throws nothing away.
    pub sure: bool,
    /// Whether what it wants to do gives way to everything else.
    pub background: bool,
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// When each call is meant to begin.
    pub calls: Vec<Millis>,
    pub seats: u32,
}

impl Row {
    fn shaped(&self, scope: &Scope, ask: &Ask) -> Row {
        let mut row = self.clone();
        row.used.resize(scope.windows.len(), BTreeMap::new());
        if ask.sure {
            for (used, window) in row.used.iter_mut().zip(scope.windows) {
                let slice = window.slice(ask.now);
                let first = window.first(slice);
                let last = window.slice(ask.now + window.span.num_milliseconds());
                used.retain(|slice, _| (first..=last).contains(slice));
            }
            row.seats.retain(|_, (_, until)| {
                (ask.now..=ask.now + SEAT_REST + AHEAD + LATE).contains(&(*until + SEAT_REST))
            });
        }
        for at in ask.back {
            for (used, window) in row.used.iter_mut().zip(scope.windows) {
                // Calls that only some windows count are taken one by one and never given back.
                if window.only.is_none()
                    && let Some(count) = used.get_mut(&window.slice(*at))
                {
                    *count = count.saturating_sub(1);
                }
            }
        }
        for (index, left, at) in ask.left {
            let (Some(window), Some(used)) = (scope.windows.get(*index), row.used.get_mut(*index))
            else {
                continue;
            };
            // Somebody else's calls count too, and a tier may allow fewer than the window says: what
            // the provider has counted and we have not is booked as if it were ours.
            let slice = window.slice(ask.now);
            if window.slice(*at) == slice {
                let counted: u32 = used.range(window.first(slice)..).map(|(_, n)| n).sum();
                let ours = window.calls.saturating_sub(counted);
                *used.entry(slice).or_default() += ours.saturating_sub(*left);
            }
        }
        row
    }

    /// Whether one more call at `at` leaves every window within its limit.
    fn fits(&self, scope: &Scope, ask: &Ask, at: Millis) -> bool {
        let mut windows = scope.windows.iter().zip(&self.used);
        windows.all(|(window, used)| {
            if !window.counts(ask.path) {
                return true;
            }
            // The last quarter of a window is for what cannot wait.
            let most = match ask.background {
                true => window.calls - window.calls.div_ceil(LIVE_SHARE),
                false => window.calls,
            };
            let slice = window.slice(at);
            let until = |last: i64| -> u32 {
                let range = used.range(window.first(last)..=last);
                range.map(|(_, count)| count).sum()
            };
            // Calls that were taken ahead are in windows which this one would be in as well.
            let later = used
                .range(slice + 1..)
                .map(|(later, _)| *later)
                .take_while(|later| window.first(*later) <= slice);
            std::iter::once(slice)
                .chain(later)
                .all(|last| until(last) < most)
        })
    }

    fn count(&mut self, scope: &Scope, path: &str, at: Millis) {
        for (used, window) in self.used.iter_mut().zip(scope.windows) {
            if window.counts(path) {
                *used.entry(window.slice(at)).or_default() += 1;
            }
        }
    }

    /// The first moment from `now` on at which a call fits.
    fn opens(&self, scope: &Scope, ask: &Ask) -> Millis {
        let now = ask.now;
        let mut moments: Vec<Millis> = Vec::new();
        for (window, used) in scope.windows.iter().zip(&self.used) {
            for slice in used.keys() {
                let end = (slice + 1) * window.slice_length();
                let gone = end + window.span.num_milliseconds() + LATE;
                // The window moves on by whole slices.
                let gone = gone.div_euclid(window.slice_length()) * window.slice_length();
                moments.push(gone.max(now));
                moments.push((gone + window.slice_length()).max(now));
            }
        }
        moments.sort_unstable();
        let fit = moments.into_iter().find(|at| self.fits(scope, ask, *at));
        fit.unwrap_or(now)
    }

    /// Takes calls for one process: the new row and what was taken, or the time until which there is
    /// nothing to take.
    pub fn take(&self, scope: &Scope, ask: &Ask) -> Result<(Row, Taken), Millis> {
        if let Some(until) = self.pause_ends(ask.now) {
            return Err(until);
        }
        let mut row = self.shaped(scope, ask);
        let seats = match scope.seats {
            None => 0,
            Some(all) => {
                let others = row
                    .seats
                    .iter()
                    .filter(|(who, (_, until))| *who != ask.who && *until + SEAT_REST > ask.now);
                let others: Vec<(&String, u32)> =
                    others.map(|(who, (seats, _))| (who, *seats)).collect();
                let free = all.saturating_sub(others.iter().map(|(_, seats)| seats).sum());
                let processes = others
                    .iter()
                    .filter(|(who, _)| !who.ends_with(LEFT))
                    .count();
                if free == 0 || processes >= PROCESSES_MAX {
                    return Err(ask.now + LATE + SEAT_REST);
                }
                let pace = scope.pace.map_or(0, |pace| pace.num_milliseconds());
                let most = u32::try_from(pace / ask.busy.max(1)).unwrap_or(1) + 1;
                // As many as the process can fill. Beside others about half of them, so that what it does
                // between its calls leaves no seat empty.
                let wanted = if others.is_empty() {
                    most
                } else {
                    most / 2 + 1
                };
                if pace == 0 { 1 } else { wanted.min(free) }
            }
        };
        let pace = pace(scope, seats);
        let apart = ask.busy.max(pace).max(1);
        // Whoever does not know what time it is there makes one call to learn it.
        let one = scope.is_special(ask.path) || !ask.sure;
        let most = if one { 1 } else { CALLS_MAX };
        let mut calls = Vec::new();
        let mut at = ask.now.max(ask.began + pace);
        while calls.len() < most && at <= ask.now + AHEAD && row.fits(scope, ask, at) {
            row.count(scope, ask.path, at);
            calls.push(at);
            at += apart;
        }
        let Some(last) = calls.last() else {
            return Err(row.opens(scope, ask));
        };
        if seats > 0 {
            row.leave_seats(scope, ask, seats);
            let (seat, until) = row.seats.entry(ask.who.to_owned()).or_default();
            (*seat, *until) = (seats, (*until).max(last + LATE));
        }
        Ok((row, Taken { calls, seats }))
    }

    /// Whether `count` things should go one by one although one call could carry them: calls with several
    /// are counted apart, fewer are left than so few things are worth, and other calls are left. As the
    /// window fills up, what is left of it is kept for those with more to carry; and each process that
    /// may be at it finds one, so that none waits for what another has just taken.
    pub fn is_better_alone(&self, scope: &Scope, ask: &Ask, count: u32) -> bool {
        let Some(several) = scope.windows.iter().find(|window| window.only.is_some()) else {
            return false;
        };
        let mut row = self.shaped(scope, ask);
        let others = scope.windows.iter().filter(|window| window.only.is_none());
        let others = others.filter(|window| window.span == several.span);
        // So many single calls are allowed for each of those.
        let price = others.map(|window| window.calls / several.calls.max(1));
        let price = price.min().unwrap_or(0);
        let other = Ask {
            path: "",
            ..ask.clone()
        };
        if count > price || !row.fits(scope, &other, ask.now) {
            return false;
        }
        let keep = several.calls * (price - count) / price.max(1);
        for _ in 0..(keep as usize).max(PROCESSES_MAX - 1) {
            row.count(scope, ask.path, ask.now);
        }
        !row.fits(scope, ask, ask.now)
    }

    /// Lets somebody begin who has `count` messages: the new row; or the time until which few messages
    /// gather first, and the row to say so in. They do so when calls that carry several things are
    /// counted apart and are running out, because what is done now with a call that is half empty waits
    /// for the next window later.
    pub fn begin(&self, scope: &Scope, ask: &Ask, count: usize) -> Result<Row, (Millis, Row)> {
        let row = self.shaped(scope, ask);
        let mut several = scope.windows.iter().zip(&row.used);
        let scarce = several.any(|(window, used)| {
            let first = window.first(window.slice(ask.now));
            let used: u32 = used.range(first..).map(|(_, count)| count).sum();
            window.only.is_some() && used >= window.calls / FREELY
        });
        let next = |began, gathering| Row {
            began,
            gathering,
            ..self.clone()
        };
        if count >= FEW {
            return Ok(next(self.began, 0));
        }
        let until = self.began + GATHERING;
        let alone = (ask.now + 1..=ask.now + ALONE).contains(&self.began);
        if !scarce || alone {
            return Ok(self.clone());
        }
        if (self.began..until).contains(&ask.now) {
            return Err((until, next(self.began, self.gathering + count)));
        }
        // Many were to come together, and here are few: whoever hands them over does not put them together.
        if self.gathering >= FEW {
            return Ok(next(ask.now + ALONE, 0));
        }
        Ok(next(ask.now, 0))
    }

    /// Keeps the seats free for as long as the pace lasts that a process has no more use for: its last
    /// calls were made on them.
    fn leave_seats(&mut self, scope: &Scope, ask: &Ask, seats: u32) {
        let had = self.seats.get(ask.who).map_or(0, |(had, _)| *had);
        if had > seats {
            let pace = scope.pace.map_or(0, |pace| pace.num_milliseconds());
            let left = self.seats.entry(format!("{}{LEFT}", ask.who)).or_default();
            // What it left just before is not free yet either.
            let before = if left.1 + SEAT_REST > ask.now {
                left.0
            } else {
                0
            };
            *left = (before + had - seats, ask.now + pace - SEAT_REST);
        }
    }

    /// When a pause ends that holds at `now`. One that would last longer than it was meant to was written
    /// by a clock that is ahead: it is left to the provider to refuse again.
    fn pause_ends(&self, now: Millis) -> Option<Millis> {
        let (until, lasts) = self.paused;
        (now < until && until - now <= lasts).then_some(until)
    }

    /// Stops all calls for as long as `lasts` from `now`.
    pub fn pause(&self, now: Millis, lasts: Millis) -> Row {
        if self
            .pause_ends(now)
            .is_some_and(|until| until >= now + lasts)
        {
            return self.clone();
        }
        Row {
            paused: (now + lasts, lasts),
            // Those who were sent away before come back in the pause or find it over.
            turn: 0,
            ..self.clone()
        }
    }

    /// Sends `count` messages away that could not make a call to `path` before `until`: the new row and
    /// how many milliseconds they stay away. As many as one call can carry come back together, and then
    /// others, as far apart as the provider takes such calls, so that what cannot be done at once is not
    /// asked for over and over.
    pub fn send_away(
        &self,
        scope: &Scope,
        path: &str,
        count: usize,
        now: Millis,
        until: Millis,
    ) -> (Row, Millis) {
        // Whose clock differs from those who make the calls would give out turns that are no turns.
        let newest = scope
            .windows
            .iter()
            .zip(&self.used)
            .find_map(|(window, used)| {
                let (slice, _) = used.last_key_value()?;
                Some(slice * window.slice_length())
            });
        let strange = newest.is_some_and(|newest| (newest - now).abs() > SURE);
        if strange && self.pause_ends(now).is_none() {
            let away = (until - now).clamp(AWAY_MIN, AWAY_UNSURE_MAX);
            return (self.clone(), away);
        }
        let special = scope.is_special(path);
        let windows = scope.windows.iter();
        let windows = windows.filter(|window| window.only.is_some() == special);
        let each = windows.map(|window| {
            let turns = if special {
                window.calls
            } else {
                window.calls / TURN_CALLS
            };
            window.span.num_milliseconds() / i64::from(turns.max(1))
        });
        // The shortest window is the one at whose rate work goes on; a day's is waited for in `until`.
        let step = each.min().unwrap_or(0);
        let first = until.max(now + AWAY_MIN);
        let known = (now..=now + AWAY_MAX).contains(&self.turn);
        let turn = if known && self.turn >= first && self.turn_size + count <= TURN_SIZE {
            self.turn
        } else if known {
            (self.turn + step).max(first)
        } else {
            first
        };
        if turn - now <= AWAY_MAX {
            let turn_size = if turn == self.turn {
                self.turn_size + count
            } else {
                count
            };
            let row = Row {
                turn,
                turn_size,
                ..self.clone()
            };
            return (row, turn - now);
        }
        // More than fits: spread over the second half of the time, to be sent away again.
        let away = AWAY_MAX / 2 + now.rem_euclid(AWAY_MAX / 2);
        (self.clone(), away)
    }
}

/// The least time between two calls of a process with so many seats.
fn pace(scope: &Scope, seats: u32) -> Millis {
    let pace = scope.pace.map_or(0, |pace| pace.num_milliseconds());
    let seats = i64::from(seats.max(1));
    (pace + seats - 1) / seats
}

/// What an answer says about the calls to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    pub lasts: Millis,
    /// Whether the whole application is meant, not one account.
    pub app: bool,
}

/// Reads how long calls must stop after an answer with `status`, its `Retry-After` in milliseconds and
/// the provider's word for the limit that was met. `None` if they need not.
pub fn silence(
    limits: &Limits,
    status: u16,
    retry_after: Option<Millis>,
    problem: Option<&str>,
) -> Option<Silence> {
    let problem = problem.unwrap_or_default().to_ascii_lowercase();
    let lasts = match (status, retry_after) {
        (429 | 503, Some(wait)) => wait,
        (429, None) if problem.contains("concurrent") => PAUSE_MOMENT,
        (429, None) => limits.pause.num_milliseconds(),
        _ => return None,
    };
    Some(Silence {
        lasts: lasts.clamp(PAUSE_MOMENT, PAUSE_MAX),
        app: problem.contains("app"),
    })
}

#[cfg(test)]
mod tests;
