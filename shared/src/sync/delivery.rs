//! When a webhook is tried again and when it is not: the ladder of one delivery, and the breaker and the token
//! bucket of one endpoint.
//!
//! What a receiver may say is that of Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, "Webhook
//! delivery"): success is 2xx alone, 410 ends it, `Retry-After` is obeyed. The header `webhook-delivery` is
//! Svix's (<https://docs.svix.com/retries>).

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The waits between one attempt and the next; after the last of them, one a day.
pub const LADDER: [TimeDelta; 9] = [
    TimeDelta::seconds(5),
    TimeDelta::seconds(30),
    TimeDelta::minutes(2),
    TimeDelta::minutes(10),
    TimeDelta::minutes(30),
    TimeDelta::hours(1),
    TimeDelta::hours(3),
    TimeDelta::hours(6),
    TimeDelta::hours(12),
];
const DAILY: TimeDelta = TimeDelta::days(1);
/// How long a delivery is tried.
pub const LIFE: TimeDelta = TimeDelta::days(7);
/// The longest wait that a receiver can ask for.
pub const RETRY_AFTER_MAX: TimeDelta = TimeDelta::hours(24);
/// Failures in a row after which an endpoint is left in peace for a while.
pub const FAILURES_TRIP: u32 = 5;
/// How long for the first time; each time after it twice as long, up to the longest.
const PAUSE_FIRST: TimeDelta = TimeDelta::seconds(30);
pub const PAUSE_LONGEST: TimeDelta = TimeDelta::minutes(10);
/// How long the one attempt may take that finds out whether an endpoint is well again.
const PROBE: TimeDelta = TimeDelta::seconds(60);
/// Whoever fails for so long is switched off.
pub const FAILING_MAX: TimeDelta = TimeDelta::days(5);
/// An attempt that takes longer than this keeps a place that others wait for.
pub const LONG: Duration = Duration::from_secs(2);
/// One such attempt is forgiven in so long; whoever has more of them than are forgiven, by this much, is slow.
const LONG_FORGIVEN: TimeDelta = TimeDelta::seconds(10);
const LONG_TRIP: TimeDelta = TimeDelta::seconds(25);
/// For how long it is slow after the latest of them: twice as long each time, up to the longest, until it has
/// not been slow for a while.
const SLOW_FIRST: TimeDelta = TimeDelta::minutes(1);
const SLOW_LONGEST: TimeDelta = TimeDelta::minutes(10);
const SLOW_FORGOTTEN: TimeDelta = TimeDelta::hours(1);
/// About how many attempts an endpoint that is slow has at the same time.
const SLOW_PLACES: u64 = 40;
/// What an attempt takes at the longest, in milliseconds, which is what is reckoned with at first; and at the
/// least.
const TAKES_LONGEST: u64 = 20_000;
const TAKES_LEAST: u64 = 1_000;
/// How often it is noted how long attempts take.
const TAKES_NOTED: TimeDelta = TimeDelta::seconds(5);
/// The longest that an attempt has its turn ahead; a queue keeps a message to itself for 15 minutes.
pub const TURN_AHEAD_MAX: TimeDelta = TimeDelta::minutes(14);

/// What came of one attempt, as far as it decides what follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Nothing where no whole answer came.
    pub status: Option<u16>,
    /// `Retry-After`, as a time from now.
    pub retry_after: Option<TimeDelta>,
    /// The header `webhook-delivery`.
    pub control: Option<&'a str>,
}

impl Answer<'_> {
    pub fn is_success(self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether the receiver wants nothing more at this endpoint.
    pub fn ends_endpoint(self) -> bool {
        self.status == Some(410) || self.control == Some("disable")
    }
}

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    Again(DateTime<Utc>),
    /// It was tried for as long as deliveries are.
    Exhausted,
    /// The receiver does not want this one.
    Aborted,
}

/// How long to wait at the given step of the ladder, which begins at 1. `jitter` moves it by up to a tenth
/// either way, so that what failed together does not come back together.
pub fn wait(step: u32, jitter: u8) -> TimeDelta {
    let place = usize::try_from(step.saturating_sub(1)).unwrap_or(usize::MAX);
    let wait = LADDER.get(place).copied().unwrap_or(DAILY);
    wait * 9 / 10 + wait * i32::from(jitter) / (5 * 255)
}

/// Decides what follows `answer`, which was the attempt at `step` of a delivery that began at `began`.
pub fn judge(
    answer: Answer<'_>,
    step: u32,
    began: DateTime<Utc>,
    now: DateTime<Utc>,
    jitter: u8,
) -> Verdict {
    if answer.is_success() {
        return Verdict::Delivered;
    }
    if answer.ends_endpoint() || answer.control == Some("abort-message") {
        return Verdict::Aborted;
    }
    // Other answers may carry the header, but only these two give it this meaning.
    let asked = match answer.status {
        Some(429 | 503) => answer.retry_after.unwrap_or_default(),
        _ => TimeDelta::zero(),
    };
    let asked = asked.clamp(TimeDelta::zero(), RETRY_AFTER_MAX);
    let spread = asked * i32::from(jitter) / (10 * 255);
    again(
        began,
        now,
        wait(step, jitter).max((asked + spread).min(RETRY_AFTER_MAX)),
    )
}

/// What follows where no attempt was made, since the endpoint rests until `rests_until`.
pub fn put_off(
    step: u32,
    began: DateTime<Utc>,
    rests_until: DateTime<Utc>,
    now: DateTime<Utc>,
    jitter: u8,
) -> Verdict {
    let rest = rests_until - now;
    let spread = rest * i32::from(jitter) / 255;
    again(began, now, wait(step, jitter).max(rest + spread))
}

fn again(began: DateTime<Utc>, now: DateTime<Utc>, wait: TimeDelta) -> Verdict {
    let at = now + wait;
    match at <= began + LIFE {
        true => Verdict::Again(at),
        false => Verdict::Exhausted,
    }
}

/// Attempts that took long, and whether their endpoint is slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Long {
    /// When all of them are forgiven.
    pub forgiven_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_until: Option<DateTime<Utc>>,
    /// How often it was slow of late.
    #[serde(default)]
    pub times: u32,
    /// What its attempts take, in milliseconds: each that is noted counts for a quarter.
    pub takes_ms: u64,
    pub noted_at: DateTime<Utc>,
}

impl Long {
    fn is_slow(&self, now: DateTime<Utc>) -> bool {
        self.slow_until.is_some_and(|until| now < until)
    }

    fn pause(&self) -> TimeDelta {
        let doubled = 1 << self.times.saturating_sub(1).min(10);
        (SLOW_FIRST * doubled).min(SLOW_LONGEST)
    }

    fn one_more(mut self, now: DateTime<Utc>) -> Long {
        if self.is_slow(now) {
            // That it still is need not be noted each time.
            let until = now + self.pause();
            if self
                .slow_until
                .is_some_and(|held| until - held > SLOW_FIRST / 2)
            {
                self.slow_until = Some(until);
            }
            return self;
        }
        self.forgiven_at = self.forgiven_at.max(now) + LONG_FORGIVEN;
        if self.forgiven_at - now > LONG_TRIP {
            let is_forgotten = self
                .slow_until
                .is_none_or(|until| now - until > SLOW_FORGOTTEN);
            self.times = if is_forgotten {
                1
            } else {
                self.times.saturating_add(1)
            };
            self.slow_until = Some(now + self.pause());
            self.takes_ms = TAKES_LONGEST;
        }
        self
    }
}

/// How an endpoint answers. Nothing is stored of one that is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Since when every attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<DateTime<Utc>>,
    /// How many those were.
    #[serde(default)]
    pub failures: u32,
    /// How often it was left in peace since.
    #[serde(default)]
    pub trips: u32,
    /// Until then nothing is sent to it, and then one attempt decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_until: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<Long>,
}

/// Whether an attempt may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    Yes,
    /// As the one that finds out, for whoever is first to store this.
    Probe(Health),
    No(DateTime<Utc>),
}

impl Health {
    pub fn admit(&self, now: DateTime<Utc>) -> Admission {
        match self.rests_until {
            None => Admission::Yes,
            Some(until) if now < until => Admission::No(until),
            Some(_) => Admission::Probe(Health {
                rests_until: Some(now + PROBE),
                ..self.clone()
            }),
        }
    }

    /// After an attempt that failed; `probed` where it was the one that finds out.
    pub fn failed(&self, probed: bool, now: DateTime<Utc>) -> Health {
        let failures = self.failures.saturating_add(1);
        // Attempts that were under way when it tripped change nothing any more.
        let trips = match (self.rests_until.is_some(), probed) {
            (true, false) => false,
            (true, true) => true,
            (false, _) => failures >= FAILURES_TRIP,
        };
        let failing_since = self.failing_since.or(Some(now));
        if !trips {
            return Health {
                failing_since,
                failures,
                ..self.clone()
            };
        }
        let doubled = 1 << self.trips.min(10);
        Health {
            failing_since,
            failures,
            trips: self.trips.saturating_add(1),
            rests_until: Some(now + (PAUSE_FIRST * doubled).min(PAUSE_LONGEST)),
            long: self.long.clone(),
        }
    }

    /// After an attempt that went well.
    pub fn succeeded(&self) -> Health {
        Health {
            long: self.long.clone(),
            ..Health::default()
        }
    }

    /// While an attempt is under way that takes long. Success or not makes no difference to who waits for its
    /// place.
    pub fn took_long(&self, now: DateTime<Utc>) -> Health {
        let long = self.long.clone().unwrap_or(Long {
            forgiven_at: now,
            slow_until: None,
            times: 0,
            takes_ms: TAKES_LONGEST,
            noted_at: now,
        });
        Health {
            long: Some(long.one_more(now)),
            ..self.clone()
        }
    }

    /// After an attempt at one that is slow, which took so many milliseconds.
    pub fn took(&self, ms: u64, now: DateTime<Utc>) -> Health {
        let mut health = self.clone();
        let slow = health.long.as_mut().filter(|long| long.is_slow(now));
        if let Some(long) = slow.filter(|long| now - long.noted_at >= TAKES_NOTED) {
            long.takes_ms = (long.takes_ms * 3 + ms) / 4;
            long.noted_at = now;
        }
        health
    }

    /// How many attempts a second an endpoint that is slow has, so that they keep no more places than one may
    /// have, whatever they take. Nothing for one that is not slow.
    pub fn slow_rate(&self, now: DateTime<Utc>) -> Option<u32> {
        let long = self.long.as_ref().filter(|long| long.is_slow(now))?;
        let rate = SLOW_PLACES * 1000 / long.takes_ms.clamp(TAKES_LEAST, TAKES_LONGEST);
        Some(u32::try_from(rate).unwrap_or(1))
    }

    /// Whether an endpoint that just failed has failed for so long that it is switched off.
    pub fn is_hopeless(&self, now: DateTime<Utc>) -> bool {
        self.failures > FAILURES_TRIP
            && self
                .failing_since
                .is_some_and(|since| now - since >= FAILING_MAX)
    }

    /// Whether its owner is told that it fails, which happens once until it is well again.
    pub fn is_noticeable(&self) -> bool {
        self.failures == FAILURES_TRIP
    }

    /// Whether nothing speaks against it.
    pub fn is_well(&self, now: DateTime<Utc>) -> bool {
        let long = self.long.as_ref();
        let is_quick = long.is_none_or(|long| !long.is_slow(now) && long.forgiven_at <= now);
        is_quick && *self == self.succeeded()
    }
}

/// The token bucket of one endpoint: a second's worth of attempts at once, and then as many a second. What
/// finds it empty takes a token that is not there yet, so that whoever waits knows until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// When it is full again if nobody takes any more (the "theoretical arrival time" of the generic cell rate
    /// algorithm, ITU-T I.371).
    pub full_at: DateTime<Utc>,
}

impl Bucket {
    /// Takes one token of `rate` a second and returns when its turn is; nothing is taken, and nothing
    /// returned, where that is too far ahead.
    pub fn take(&mut self, rate: u32, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let rate = i64::from(rate.max(1));
        let one = TimeDelta::microseconds(1_000_000 / rate);
        let rest = TimeDelta::microseconds(1_000_000 / rate * (rate - 1));
        let turn = (self.full_at - rest).max(now);
        if turn - now > TURN_AHEAD_MAX {
            return None;
        }
        self.full_at = self.full_at.max(now) + one;
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BEGAN: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn answered(status: u16) -> Answer<'static> {
        Answer {
            status: Some(status),
            ..Answer::default()
        }
    }

    #[test]
    fn the_ladder_is_climbed_for_seven_days() {
        for jitter in [0, 127, 255] {
            let (mut now, mut step) = (BEGAN, 1);
            while let Verdict::Again(at) = judge(answered(500), step, BEGAN, now, jitter) {
                assert!(at > now);
                (now, step) = (at, step + 1);
            }
            assert!((14..=16).contains(&step), "{step} attempts");
            assert!(now - BEGAN > LIFE - TimeDelta::hours(27), "{now}");
            assert_eq!(
                judge(answered(500), step, BEGAN, now, jitter),
                Verdict::Exhausted
            );
        }
        assert_eq!(wait(1, 0), TimeDelta::milliseconds(4500));
        assert_eq!(wait(1, 255), TimeDelta::milliseconds(5500));
        assert_eq!(wait(10, 0), TimeDelta::hours(24) * 9 / 10);
        assert_eq!(wait(u32::MAX, 0), wait(10, 0));
    }

    #[test]
    fn what_a_receiver_says_is_obeyed() {
        for status in [200, 204, 299] {
            assert_eq!(
                judge(answered(status), 1, BEGAN, BEGAN, 0),
                Verdict::Delivered
            );
        }
        for status in [301, 302, 304, 400, 404, 429, 500, 503] {
            let verdict = judge(answered(status), 1, BEGAN, BEGAN, 0);
            assert!(matches!(verdict, Verdict::Again(_)), "{status}");
        }
        assert_eq!(
            judge(Answer::default(), 1, BEGAN, BEGAN, 0),
            Verdict::Again(BEGAN + wait(1, 0))
        );
        assert_eq!(judge(answered(410), 1, BEGAN, BEGAN, 0), Verdict::Aborted);
        assert!(answered(410).ends_endpoint());
        let told = |control| Answer {
            control: Some(control),
            ..answered(500)
        };
        assert_eq!(
            judge(told("abort-message"), 1, BEGAN, BEGAN, 0),
            Verdict::Aborted
        );
        assert!(!told("abort-message").ends_endpoint());
        assert!(told("disable").ends_endpoint());
        assert!(matches!(
            judge(told("other"), 1, BEGAN, BEGAN, 0),
            Verdict::Again(_)
        ));
        let asked = |status, seconds| Answer {
            retry_after: Some(TimeDelta::seconds(seconds)),
            ..answered(status)
        };
        let at = |seconds| Verdict::Again(BEGAN + TimeDelta::seconds(seconds));
        assert_eq!(judge(asked(429, 600), 1, BEGAN, BEGAN, 0), at(600));
        assert_eq!(judge(asked(503, 600), 1, BEGAN, BEGAN, 255), at(660));
        assert_eq!(judge(asked(503, 999_999), 1, BEGAN, BEGAN, 9), at(86_400));
        // What is asked for is no reason to come earlier, nor does any status ask.
        let usual = Verdict::Again(BEGAN + wait(4, 0));
        assert_eq!(judge(asked(429, 1), 4, BEGAN, BEGAN, 0), usual);
        assert_eq!(judge(asked(500, 9000), 4, BEGAN, BEGAN, 0), usual);
    }

    #[test]
    fn an_endpoint_that_fails_rests_longer_and_longer_and_is_tried_by_one() {
        let mut health = Health::default();
        let mut now = BEGAN;
        for _ in 1..FAILURES_TRIP {
            health = health.failed(false, now);
            assert_eq!(health.admit(now), Admission::Yes);
        }
        health = health.failed(false, now);
        assert!(health.is_noticeable());
        let mut rests = Vec::new();
        for _ in 0..8 {
            let Admission::No(until) = health.admit(now) else {
                panic!("{health:?}")
            };
            rests.push((until - now).num_seconds());
            // Others that were under way.
            assert_eq!(health.failed(false, now).rests_until, Some(until));
            now = until;
            let Admission::Probe(probing) = health.admit(now) else {
                panic!("{health:?}")
            };
            assert!(matches!(probing.admit(now), Admission::No(_)), "one alone");
            // Whoever dies while he finds out does not keep it shut.
            assert!(matches!(probing.admit(now + PROBE), Admission::Probe(_)));
            health = probing.failed(true, now);
        }
        assert_eq!(rests, [30, 60, 120, 240, 480, 600, 600, 600]);
        assert!(!health.is_hopeless(now));
        assert!(health.is_hopeless(BEGAN + FAILING_MAX));
    }

    proptest! {
        /// Whatever is answered, a delivery ends within its life, and never comes back at once.
        #[test]
        fn every_delivery_ends(
            answers in proptest::collection::vec(
                (proptest::option::of(100u16..600), proptest::option::of(-9i64..200_000), any::<u8>()),
                200,
            ),
        ) {
            let (mut now, mut step) = (BEGAN, 1);
            for (status, seconds, jitter) in answers {
                let retry_after = seconds.map(TimeDelta::seconds);
                let answer = Answer { status, retry_after, control: None };
                match judge(answer, step, BEGAN, now, jitter) {
                    Verdict::Again(at) => {
                        prop_assert!(at >= now + TimeDelta::seconds(4));
                        prop_assert!(at <= BEGAN + LIFE);
                        (now, step) = (at, step + 1);
                    }
                    _ => return Ok(()),
                }
            }
            prop_assert!(false, "two hundred attempts");
        }
    }

    #[test]
    fn who_takes_long_again_and_again_is_slow_until_it_is_quick() {
        let second = |second| BEGAN + TimeDelta::seconds(second);
        let mut seldom = Health::default();
        for of in 0..1000 {
            seldom = seldom.took_long(second(of * 10));
            assert_eq!(
                seldom.slow_rate(second(of * 10)),
                None,
                "one in ten seconds is forgiven"
            );
        }
        assert!(!seldom.is_well(second(9990)) && seldom.is_well(second(10_000)));

        let mut often = Health::default();
        for of in 0..3 {
            assert_eq!(often.slow_rate(second(of)), None, "{of}");
            often = often.took_long(second(of));
        }
        assert_eq!(often.slow_rate(second(2)), Some(2));
        assert_eq!(often.took_long(second(3)), often, "not written each time");
        let longer = often.took_long(second(40));
        assert_eq!(often.slow_rate(second(62)), None);
        assert_eq!(longer.slow_rate(second(62)), Some(2));
        assert!(often.is_well(second(62)));
        // A failure or a success does not make it quick.
        for after in [often.failed(false, second(3)), often.succeeded()] {
            assert_eq!(after.slow_rate(second(4)), Some(2));
        }
        // The second time it is slow for twice as long.
        let mut again = often;
        for of in 100..103 {
            again = again.took_long(second(of));
        }
        assert!(again.slow_rate(second(220)).is_some() && again.slow_rate(second(223)).is_none());
    }

    #[test]
    fn who_is_a_little_slow_has_more_attempts_a_second() {
        let second = |second| BEGAN + TimeDelta::seconds(second);
        let mut health = Health::default();
        for _ in 0..3 {
            health = health.took_long(second(0));
        }
        assert_eq!(health.took(2500, second(1)), health, "noted now and then");
        for of in 1..10 {
            health = health.took(2500, second(of * 5));
        }
        let rate = health.slow_rate(second(50)).unwrap();
        assert!((10..=16).contains(&rate), "{rate}");
    }

    proptest! {
        #[test]
        fn a_bucket_gives_no_more_than_its_rate(
            rate in 1..200_u32,
            asked in proptest::collection::vec(0..3000_i64, 1..400),
        ) {
            let mut bucket = Bucket { full_at: BEGAN };
            let (mut now, mut turns) = (BEGAN, Vec::new());
            for pause in asked {
                now += TimeDelta::milliseconds(pause / 10);
                let turn = bucket.take(rate, now).unwrap();
                prop_assert!(turn >= now);
                turns.push(turn);
            }
            // In a second from any turn on: what the bucket holds, and what comes into it.
            for (place, first) in turns.iter().enumerate() {
                let until = *first + TimeDelta::seconds(1);
                let within = turns[place..].iter().filter(|turn| **turn < until).count();
                prop_assert!(within <= 2 * rate as usize, "{within} of {rate}");
            }
        }
    }

    #[test]
    fn a_bucket_tells_how_long_to_wait_and_not_too_long() {
        let mut bucket = Bucket { full_at: BEGAN };
        let mut turns = Vec::new();
        while let Some(turn) = bucket.take(2, BEGAN) {
            turns.push(turn - BEGAN);
        }
        assert_eq!(turns[..3], [0, 0, 500].map(TimeDelta::milliseconds));
        assert_eq!(turns.last(), Some(&TURN_AHEAD_MAX));
        let full = bucket.clone();
        assert_eq!(bucket.take(2, BEGAN), None);
        assert_eq!(bucket, full, "nothing is taken");
    }
}
