//! What every text, address and time from outside must keep to, whatever it is called. A provider that
//! refuses one refuses the whole document, and the merchant hears of it days later.

use crate::error::FieldError;
use chrono::{DateTime, Utc};
use email_address::{EmailAddress, Options};

/// Longest e-mail address, in characters, as QuickBooks takes.
const EMAIL_CHARACTERS_MAX: usize = 100;
/// The years that a time may lie in. What lies outside is a mistake in somebody's clock or units.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2099;

/// One line of text, of `min` to `max` characters.
pub fn check_line(faults: &mut Vec<FieldError>, path: &str, text: &str, min: usize, max: usize) {
    check(faults, path, text, min, max, |_| false);
}

/// Text that may go over several lines, of `min` to `max` characters.
pub fn check_lines(faults: &mut Vec<FieldError>, path: &str, text: &str, min: usize, max: usize) {
    check(faults, path, text, min, max, |c| matches!(c, '\n' | '\r'));
}

fn check(
    faults: &mut Vec<FieldError>,
    path: &str,
    text: &str,
    min: usize,
    max: usize,
    also: fn(char) -> bool,
) {
    let length = text.chars().count();
    let seen = text.chars().filter(|c| !is_blank(*c)).count();
    if seen < min || length > max {
        let detail = format!("between {min} and {max} characters are needed, {length} came");
        faults.push(FieldError::new(path, "wrong_length", detail));
    }
    // No XML can hold these, and providers' systems are made of it; nobody types them on purpose.
    let bad = |c: &char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    if let Some(found) = text.chars().find(|c| bad(c) && !also(*c)) {
        let detail = format!(
            "U+{:04X} stands here; leave out control characters such as line breaks and tabs, or \
             put a space in their place",
            u32::from(found)
        );
        faults.push(FieldError::new(path, "invalid_characters", detail));
    }
}

/// Whether nothing is to be seen of `c`: blanks, and what has no width.
fn is_blank(c: char) -> bool {
    let no_width = matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    c.is_whitespace() || no_width
}

/// A name that is shown beside others: nothing in it may turn what stands around it, or break its line.
pub fn check_direction(faults: &mut Vec<FieldError>, path: &str, text: &str) {
    // The bidirectional controls of Unicode (UAX #9 §2), and its separators of lines and paragraphs.
    let turns = |c: &char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if let Some(found) = text.chars().find(turns) {
        let detail = format!(
            "U+{:04X} stands here; leave out characters that change the direction of text or break its line",
            u32::from(found)
        );
        faults.push(FieldError::new(path, "invalid_characters", detail));
    }
}

/// An e-mail address as providers take it: the mail itself is the only real proof of one.
pub fn check_email(faults: &mut Vec<FieldError>, path: &str, email: Option<&String>) {
    let Some(email) = email else { return };
    let options = Options::default()
        .with_required_tld()
        .without_domain_literal()
        .without_display_text();
    // The standard allows quoted names with spaces or a second @ in them; no provider here does.
    let fits = email.chars().count() <= EMAIL_CHARACTERS_MAX
        && !email.contains(|c: char| c == '"' || c.is_whitespace() || c.is_control())
        && EmailAddress::parse_with_options(email, options).is_ok();
    if !fits {
        let detail = format!(
            "an e-mail address looks like name@example.com and has at most \
             {EMAIL_CHARACTERS_MAX} characters"
        );
        faults.push(FieldError::new(path, "invalid_email", detail));
    }
}

pub fn check_time(faults: &mut Vec<FieldError>, path: &str, time: DateTime<Utc>) {
    use chrono::Datelike;
    if !YEARS.contains(&time.year()) {
        let detail = format!(
            "a time from {} to {} is needed, written as 2026-01-31T10:00:00Z",
            YEARS.start(),
            YEARS.end()
        );
        faults.push(FieldError::new(path, "out_of_range", detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(check: impl FnOnce(&mut Vec<FieldError>)) -> Vec<&'static str> {
        let mut faults = Vec::new();
        check(&mut faults);
        faults.into_iter().map(|fault| fault.code).collect()
    }

    #[test]
    fn what_no_provider_stores_is_refused_by_its_number() {
        for bad in [
            '\0', '\n', '\r', '\t', '\u{7f}', '\u{85}', '\u{fffe}', '\u{ffff}',
        ] {
            let text = format!("a{bad}b");
            let of_line = codes(|faults| check_line(faults, "/x", &text, 1, 9));
            assert_eq!(of_line, ["invalid_characters"], "{bad:?}");
            let of_lines = codes(|faults| check_lines(faults, "/x", &text, 1, 9));
            assert_eq!(of_lines.is_empty(), matches!(bad, '\n' | '\r'), "{bad:?}");
        }
        let mut faults = Vec::new();
        check_line(&mut faults, "/x", "a\tb", 1, 9);
        assert!(faults[0].detail.starts_with("U+0009"), "{faults:?}");
        assert!(codes(|faults| check_line(faults, "/x", "Zoë 日本 😀", 1, 9)).is_empty());
        for nothing in ["", "  ", "\u{200b}\u{200b}", "\u{feff}", "\u{3000}\u{ad}"] {
            let told = codes(|faults| check_line(faults, "/x", nothing, 1, 9));
            assert_eq!(told, ["wrong_length"], "{nothing:?}");
        }
    }

    #[test]
    fn a_name_turns_nothing_around_it() {
        let of = |text: &str| codes(|faults| check_direction(faults, "/x", text));
        let controls = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];
        let ranges = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        for bad in controls.into_iter().chain(ranges) {
            assert_eq!(of(&format!("a{bad}b")), ["invalid_characters"], "{bad:?}");
        }
        for good in ["Zoë's books", "חנות", "متجر", "日本 😀", "👩\u{200d}🔧"] {
            assert!(of(good).is_empty(), "{good}");
        }
    }

    #[test]
    fn an_address_has_one_at_sign_and_a_whole_domain() {
        let fits = |email: &str| {
            codes(|faults| check_email(faults, "/x", Some(&email.to_owned()))).is_empty()
        };
        for good in [
            "a@b.co",
            "first.last+tag@mail.example.co.uk",
            "o'neil@example.org",
        ] {
            assert!(fits(good), "{good}");
        }
        let long = format!("{}@example.org", "a".repeat(60)).replace("example", &"e".repeat(45));
        for bad in [
            "",
            "a",
            "@b.co",
            "a@",
            "a@b",
            "a@@b.co",
            "a@b@c.co",
            "a b@c.co",
            "a@b .co",
            "a@b..co",
            "a@.b.co",
            "a@b.co.",
            ".a@b.co",
            "a.@b.co",
            "a@b.co\n",
            "a\0@b.co",
            "\"a b\"@b.co",
            "a@[127.0.0.1]",
            "A <a@b.co>",
            &long,
        ] {
            assert!(!fits(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_time_lies_in_our_age() {
        let fits =
            |text: &str| codes(|faults| check_time(faults, "/x", text.parse().unwrap())).is_empty();
        assert!(fits("1970-01-01T00:00:00Z") && fits("2099-12-31T23:59:59Z"));
        for bad in [
            "0001-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2100-01-01T00:00:00Z",
        ] {
            assert!(!fits(bad), "{bad}");
        }
    }
}
