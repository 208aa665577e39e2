use super::*;
use proptest::prelude::*;

const fn window(calls: u32, span: TimeDelta, only: Option<&'static str>) -> Window {
    Window {
        calls,
        span,
        only,
        left: None,
    }
}

/// A provider that counts minutes and seconds, and batches apart, as QuickBooks does.
const PACED: &Scope = &Scope {
    windows: &[
        window(500, TimeDelta::minutes(1), None),
        window(40, TimeDelta::minutes(1), Some("/batch")),
    ],
    seats: Some(10),
    pace: Some(TimeDelta::milliseconds(1100)),
};

/// One that counts minutes, days and what happens at once, as Xero does.
const DAILY: &Scope = &Scope {
    windows: &[
        window(60, TimeDelta::minutes(1), None),
        window(5000, TimeDelta::days(1), None),
    ],
    seats: Some(5),
    pace: None,
};

const LIMITS: &Limits = &Limits {
    connection: Scope::FREE,
    app: Scope::FREE,
    pause: TimeDelta::minutes(1),
    problem: Some("problem"),
};

/// Random numbers out of one (splitmix64, Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1).unsigned_abs()).cast_signed()
    }
}

const BATCH: &str = "/v3/company/1/batch";
const PLAIN: &str = "/v3/company/1/salesreceipt";

/// One process in the midst of its work: what it holds, when it goes on, and how long its calls take.
struct Worker {
    held: Held,
    at: Millis,
    lasts: Millis,
}

fn worker(name: u64, at: Millis, dice: &mut Dice) -> Worker {
    let mut held = Held::new(name.to_string());
    held.see_clock(None, at, at);
    Worker {
        held,
        at,
        lasts: 1 + dice.below(900),
    }
}

/// Lets `count` workers make calls for `minutes`, each as fast as it can, with idle times, deaths and
/// now and then a batch if there are to be any. Returns when the calls began and whether each was a batch.
fn work(scope: &Scope, count: u64, minutes: i64, batches: bool, seed: u64) -> Vec<(Millis, bool)> {
    let mut dice = Dice(seed);
    let start = 1_780_000_000_000 + dice.below(100_000);
    let mut row = Row::default();
    let mut names = count;
    let mut workers: Vec<Worker> = (0..count)
        .map(|name| worker(name, start, &mut dice))
        .collect();
    let mut calls = Vec::new();
    loop {
        let next = workers
            .iter_mut()
            .min_by_key(|worker| worker.at)
            .expect("there are workers");
        let now = next.at;
        if now > start + minutes * 60_000 {
            calls.sort_unstable();
            return calls;
        }
        match dice.below(200) {
            0 => {
                names += 1;
                *next = worker(names, now + dice.below(3000), &mut dice);
                continue;
            }
            1 => {
                next.at += dice.below(20_000);
                continue;
            }
            _ => {}
        }
        let batch = batches && dice.below(10) == 0;
        let path = if batch { BATCH } else { PLAIN };
        let special = scope.is_special(path);
        next.held.ready(now);
        let begins = if special {
            None
        } else {
            next.held.next(scope, now)
        };
        if let Some(begins) = begins {
            calls.push((begins, batch));
            next.at = begins + next.lasts;
            next.held.see_clock(None, begins, next.at);
            continue;
        }
        match row.take(scope, &next.held.ask(path, now)) {
            Ok((taken_from, taken)) => {
                row = taken_from;
                if special {
                    let begins = next.held.begin(scope, &taken, now);
                    calls.push((begins, batch));
                    next.at = begins + next.lasts;
                    next.held.see_clock(None, begins, next.at);
                } else {
                    next.held.keep(taken);
                }
            }
            Err(until) => {
                assert!(until > now, "it is told to come at once again");
                next.at = until + dice.below(300);
            }
        }
    }
}

/// The most calls of any `span` of time that begins with one.
fn most(times: &[Millis], span: Millis) -> usize {
    let counts = times
        .iter()
        .enumerate()
        .map(|(index, first)| times[index..].partition_point(|time| *time < first + span));
    counts.max().unwrap_or(0)
}

fn none_holds_too_many(seed: u64, count: u64) {
    let calls = work(PACED, count, 4, true, seed);
    let all: Vec<Millis> = calls.iter().map(|(at, _)| *at).collect();
    let batches = calls.iter().filter(|(_, batch)| *batch);
    let batches: Vec<Millis> = batches.map(|(at, _)| *at).collect();
    assert!(
        most(&all, 60_000) <= 500,
        "{} in a minute",
        most(&all, 60_000)
    );
    assert!(most(&all, 1000) <= 10, "{} in a second", most(&all, 1000));
    assert!(
        most(&batches, 60_000) <= 40,
        "{} batches",
        most(&batches, 60_000)
    );
    let calls = work(DAILY, count, 4, true, seed);
    let all: Vec<Millis> = calls.iter().map(|(at, _)| *at).collect();
    assert!(
        most(&all, 60_000) <= 60,
        "{} in a minute",
        most(&all, 60_000)
    );
}

/// Here a process asks in the same millisecond in which another took a call as far ahead as that goes.
#[test]
fn a_seat_that_was_taken_this_very_moment_is_kept() {
    none_holds_too_many(7_083_599_192_606_028_222, 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// However the provider counts its minutes and seconds, none holds more than it allows.
    #[test]
    fn no_window_of_the_provider_holds_too_many(seed: u64, count in 1_u64..12) {
        none_holds_too_many(seed, count);
    }

    /// A process that dies gives nothing back, and what it took is free again soon after.
    #[test]
    fn what_the_dead_hold_ends(dead in 1_u32..8) {
        let scope = DAILY;
        let now = 1_780_000_000_000;
        let mut row = Row::default();
        for name in 0..dead {
            let held = worker(u64::from(name), now, &mut Dice(1)).held;
            if let Ok((taken, _)) = row.take(scope, &held.ask(PLAIN, now)) {
                row = taken;
            }
        }
        let held = worker(99, now, &mut Dice(1)).held;
        let full = row.take(scope, &held.ask(PLAIN, now));
        prop_assert_eq!(full.is_err(), dead >= 5);
        let later = now + AHEAD + LATE + SEAT_REST;
        prop_assert!(row.take(scope, &held.ask(PLAIN, later)).is_ok());
    }
}

#[test]
fn the_limit_is_reached() {
    let scope = PACED;
    let calls = work(scope, 8, 10, false, 7).len();
    assert!(calls >= 4400, "{calls} calls in ten minutes of 5,000");
    let scope = DAILY;
    let calls = work(scope, 8, 10, false, 7).len();
    assert!(calls >= 560, "{calls} calls in ten minutes of 600");
}

#[test]
fn what_the_provider_counts_is_booked() {
    let scope = DAILY;
    let now = 1_780_000_000_000;
    let mut held = worker(1, now, &mut Dice(1)).held;
    // The starter tier: of a thousand in a day three are left.
    held.see_left(1, 3, now);
    let (row, taken) = Row::default().take(scope, &held.ask(PLAIN, now)).unwrap();
    assert_eq!(taken.calls.len(), 3);
    held.keep(taken);
    let other = worker(2, now, &mut Dice(1)).held;
    let until = row.take(scope, &other.ask(PLAIN, now)).unwrap_err();
    assert!(
        until - now > 86_000_000,
        "it opens after a day, not after {} ms",
        until - now
    );
    // More than we think are left: that is about calls which others have taken and not made.
    let mut held = worker(1, now, &mut Dice(1)).held;
    held.see_left(1, 4_999, now);
    let (_, taken) = Row::default().take(scope, &held.ask(PLAIN, now)).unwrap();
    assert_eq!(taken.calls.len(), CALLS_MAX);
}

#[test]
fn what_is_given_back_is_there_again() {
    let scope = DAILY;
    let now = 1_780_000_000_000;
    let mut held = worker(1, now, &mut Dice(1)).held;
    let (first, taken) = Row::default().take(scope, &held.ask(PLAIN, now)).unwrap();
    held.keep(taken);
    // Too late for all of them.
    assert_eq!(held.next(scope, now + AHEAD + LATE), None);
    let (second, _) = first
        .take(scope, &held.ask(PLAIN, now + AHEAD + LATE))
        .unwrap();
    let used = |row: &Row| row.used[0].values().sum::<u32>();
    assert_eq!((used(&first), used(&second)), (8, 8));
}

#[test]
fn a_pause_is_for_everybody_and_ends() {
    let scope = PACED;
    let now = 1_780_000_000_000;
    let row = Row::default().pause(now, 60_000);
    let held = worker(1, now, &mut Dice(1)).held;
    assert_eq!(row.take(scope, &held.ask(PLAIN, now)), Err(now + 60_000));
    assert!(row.take(scope, &held.ask(PLAIN, now + 60_000)).is_ok());
    // A shorter one does not end it, a longer one does.
    let row = row.pause(now, 2000);
    assert_eq!(row.take(scope, &held.ask(PLAIN, now)), Err(now + 60_000));
    let row = row.pause(now, 90_000);
    assert_eq!(row.take(scope, &held.ask(PLAIN, now)), Err(now + 90_000));
    // A clock that was ahead has written it, and does not stop others for longer than was asked for.
    let row = Row::default().pause(now + 600_000, 60_000);
    assert!(row.take(scope, &held.ask(PLAIN, now)).is_ok());
    let row = row.pause(now, 60_000);
    assert_eq!(row.take(scope, &held.ask(PLAIN, now)), Err(now + 60_000));
}

#[test]
fn those_who_are_sent_away_come_back_one_after_another() {
    let scope = PACED;
    let now = 1_780_000_000_000;
    let mut row = Row::default();
    let mut times = Vec::new();
    for _ in 0..1000 {
        let (next, away) = row.send_away(scope, "", TURN_SIZE, now, now + 5000);
        times.push(away);
        row = next;
    }
    assert_eq!(times[..3], [5000, 5845, 6690]);
    assert!(times.iter().all(|away| (1000..=AWAY_MAX).contains(away)));
    // Whoever wants one of the few calls with several comes back at their rate.
    let row = Row::default();
    let (row, _) = row.send_away(scope, "/batch", TURN_SIZE - 1, now, now + 5000);
    let (_, away) = row.send_away(scope, "/batch", 2, now, now + 5000);
    assert_eq!(away, 6500);
    // What one call can carry comes back together, unless it has to stay away for longer.
    let (_, away) = row.send_away(scope, "/batch", 1, now + 1000, now + 5000);
    assert_eq!(away, 4000);
    let (_, away) = row.send_away(scope, "/batch", 1, now + 1000, now + 9000);
    assert_eq!(away, 8000);
}

#[test]
fn the_fewer_the_sooner_they_go_one_by_one() {
    let scope = PACED;
    assert!(LIMITS.connection.several().is_none());
    let path = scope.several().unwrap();
    let now = 1_780_000_000_000;
    let held = worker(1, now, &mut Dice(1)).held;
    let ask = &held.ask(path, now);
    let used = |batches, others| {
        let mut row = Row::default().shaped(scope, ask);
        (0..batches).for_each(|_| row.count(scope, path, now));
        (0..others).for_each(|_| row.count(scope, PLAIN, now));
        row
    };
    // Five hundred calls and forty batches are allowed: twelve for one.
    let left =
        |count| (0..=40).find(|batches| used(*batches, 0).is_better_alone(scope, ask, count));
    let left: Vec<Option<usize>> = [2, 6, 11, 12, 13].map(left).into();
    assert_eq!(left, [Some(7), Some(20), Some(36), Some(36), None]);
    // Without other calls there is nothing to be gained.
    assert!(!used(40, 460).is_better_alone(scope, ask, 2));
    let later = &held.ask(path, now + 61_000);
    assert!(!used(40, 0).is_better_alone(scope, later, 2));
}

#[test]
fn few_gather_while_calls_with_several_run_out() {
    let scope = PACED;
    let path = scope.several().unwrap();
    let now = 1_780_000_000_000;
    let held = worker(1, now, &mut Dice(1)).held;
    let used = |batches| {
        let ask = &held.ask(path, now);
        let mut row = Row::default().shaped(scope, ask);
        (0..batches).for_each(|_| row.count(scope, path, now));
        row
    };
    let begin =
        |row: &Row, later: Millis, count| row.begin(scope, &held.ask(path, now + later), count);
    // While there are plenty, each begins at once, and nothing is written.
    let plenty = used(9);
    assert_eq!(begin(&plenty, 0, 1), Ok(plenty.clone()));
    let scarce = used(10);
    let begun = begin(&scarce, 0, 1).unwrap();
    assert_ne!(begun, scarce);
    let until =
        |row: &Row, later, count| begin(row, later, count).map_err(|(until, _)| until - now);
    for count in 1..FEW {
        assert_eq!(until(&begun, 1, count), Err(GATHERING));
        assert_eq!(until(&begun, GATHERING - 1, count), Err(GATHERING));
        assert!(begin(&begun, GATHERING, count).is_ok());
    }
    // Many need no company, and let nobody wait.
    assert_eq!(begin(&begun, 1, FEW), Ok(begun.clone()));
    // Those who were sent away come together, and the next few gather again.
    let (_, sent) = begin(&begun, 1, FEW - 1).unwrap_err();
    let (_, sent) = begin(&sent, 2, 1).unwrap_err();
    let together = begin(&sent, GATHERING, FEW).unwrap();
    let next = begin(&together, GATHERING, 1).unwrap();
    assert_eq!(until(&next, GATHERING + 1, 1), Err(2 * GATHERING));
    // Where they come as few as before, nobody waits for a minute.
    let mut alone = begin(&sent, GATHERING, 1).unwrap();
    for later in (GATHERING..GATHERING + ALONE).step_by(500) {
        // The window is as full as ever.
        alone.count(scope, path, now + later);
        alone = begin(&alone, later, 1).unwrap();
    }
    assert_eq!(
        until(&alone, GATHERING + ALONE + 1, 1),
        Err(GATHERING + ALONE + GATHERING)
    );
    // When the window has moved on there are plenty again.
    assert_eq!(begin(&begun, 61_000, 1), Ok(begun.clone()));
    // A clock that was ahead makes nobody wait.
    assert!(begin(&begun, -1, 1).is_ok());
    assert!(begin(&begun, -2 * ALONE, 1).is_ok());
    // Where nothing is counted apart, nothing is gathered.
    let row = Row::default();
    let ask = held.ask("", now);
    assert_eq!(row.begin(&LIMITS.connection, &ask, 1), Ok(row.clone()));
}

#[test]
fn a_clock_is_set_by_the_provider() {
    let mut held = Held::new("1".to_owned());
    let now = 1_780_000_000_000;
    // Whole seconds and a long call are no difference.
    held.see_clock(Some(now - 900), now, now + 5000);
    assert_eq!(held.time(now), now);
    held.see_clock(Some(now - 600_000), now, now + 300);
    assert_eq!(held.time(now + 150), now + 150 - 599_650);
    // Once set, it stays while it is about right.
    held.see_clock(Some(now - 599_000), now + 1300, now + 1600);
    assert_eq!(held.time(now + 150), now + 150 - 599_650);
    held.see_clock(Some(now + 5000), now + 5000, now + 5100);
    assert_eq!(held.time(now + 5100), now + 5100);
}

#[test]
fn a_refusal_says_how_long_and_for_whom() {
    let read = |status, wait, problem| {
        silence(LIMITS, status, wait, problem).map(|silence| (silence.lasts, silence.app))
    };
    assert_eq!(read(200, Some(1), None), None);
    assert_eq!(read(503, None, None), None);
    assert_eq!(read(503, Some(7000), None), Some((7000, false)));
    assert_eq!(read(429, None, None), Some((60_000, false)));
    assert_eq!(
        read(429, Some(31_000), Some("Minute limit")),
        Some((31_000, false))
    );
    assert_eq!(
        read(429, Some(31_000), Some("appminute")),
        Some((31_000, true))
    );
    assert_eq!(read(429, None, Some("Concurrent")), Some((2000, false)));
    assert_eq!(
        read(429, Some(i64::MAX), Some("DayLimit")),
        Some((PAUSE_MAX, false))
    );
}

/// What works in the background leaves a quarter of each window, which everything else may take.
#[test]
fn the_background_leaves_a_share() {
    /// Seats are another limit.
    const UNSEATED: &Scope = &Scope {
        windows: DAILY.windows,
        seats: None,
        pace: None,
    };
    let now = 1_800_000_000_000;
    let mut row = Row::default();
    let mut taken = [0, 0];
    for (turn, background) in [true, false].into_iter().enumerate() {
        for worker in 0..200 {
            let held = Held::new(format!("{turn}/{worker}"));
            let ask = Ask {
                background,
                ..held.ask(PLAIN, now)
            };
            if let Ok((next, calls)) = row.take(UNSEATED, &ask) {
                row = next;
                taken[turn] += calls.calls.len();
            }
        }
    }
    assert_eq!(taken, [45, 15]);
}
