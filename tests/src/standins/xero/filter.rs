//! `where` and `order`, as far as integrations of shops use them: comparisons of fields, also of
//! nested ones, with texts, numbers, ids, dates, booleans and null; `Contains`, `StartsWith` and
//! `EndsWith`; joined by AND and OR, with parentheses.

use std::cmp::Ordering;

use chrono::{NaiveDate, NaiveDateTime};
use rust_decimal::Decimal;
use serde_json::Value;

use super::schema;
use super::state::Fields;
use crate::standins::money;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(Decimal),
    Sign(&'static str),
}

#[derive(Debug)]
enum Operand {
    Text(String),
    Number(Decimal),
    Moment(NaiveDateTime),
    Flag(bool),
    Null,
}

#[derive(Debug)]
enum Term {
    All(Vec<Term>),
    Any(Vec<Term>),
    Compare(String, &'static str, Operand),
    Call(String, String, String),
}

pub struct Filter(Term);

const SIGNS: [&str; 13] = [
    "==", "!=", "<=", ">=", "&&", "||", "=", "<", ">", "(", ")", ",", "!",
];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' {
            let end = rest[1..].find('"').ok_or("Unterminated string literal")?;
            all.push(Token::Text(rest[1..=end].to_owned()));
            end + 2
        } else if first.is_ascii_digit() || first == '-' {
            let end = rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.');
            let end = end.map_or(rest.len(), |end| end + 1);
            let number = rest[..end].parse().map_err(|_| "Invalid number")?;
            all.push(Token::Number(number));
            // A letter marks the type of a number.
            end + usize::from(rest[end..].starts_with(['m', 'M']))
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            all.push(Token::Sign(sign));
            sign.len()
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.'));
            let end = end.unwrap_or(rest.len());
            all.push(Token::Word(rest[..end].to_owned()));
            end
        } else {
            return Err(format!("Syntax error '{first}'"));
        };
        rest = rest[length..].trim_start();
    }
    Ok(all)
}

struct Reader {
    tokens: Vec<Token>,
    place: usize,
}

impl Reader {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.place)
    }

    fn next(&mut self) -> Result<Token, String> {
        let token = self.peek().cloned().ok_or("Expression expected")?;
        self.place += 1;
        Ok(token)
    }

    fn take(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Sign(one)) if *one == sign);
        self.place += usize::from(there);
        there
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        self.take(sign)
            .then_some(())
            .ok_or_else(|| format!("'{sign}' expected"))
    }

    fn word(&mut self, word: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Word(one)) if one.eq_ignore_ascii_case(word));
        self.place += usize::from(there);
        there
    }

    fn any(&mut self) -> Result<Term, String> {
        let mut all = vec![self.all()?];
        while self.take("||") || self.word("OR") {
            all.push(self.all()?);
        }
        Ok(Term::Any(all))
    }

    fn all(&mut self) -> Result<Term, String> {
        let mut all = vec![self.one()?];
        while self.take("&&") || self.word("AND") {
            all.push(self.one()?);
        }
        Ok(Term::All(all))
    }

    fn one(&mut self) -> Result<Term, String> {
        if self.take("(") {
            let inside = self.any()?;
            self.expect(")")?;
            return Ok(inside);
        }
        let Token::Word(field) = self.next()? else {
            return Err("Expression expected".into());
        };
        if self.take("(") {
            let (field, method) = field.rsplit_once('.').ok_or("Syntax error")?;
            let Token::Text(text) = self.next()? else {
                return Err("A string is expected".into());
            };
            self.expect(")")?;
            if !["Contains", "StartsWith", "EndsWith"].contains(&method) {
                return Err(format!("No applicable method '{method}' exists"));
            }
            // Callers guard such a call with a comparison of their own.
            if self.take("==") || self.take("=") {
                self.word("true");
            }
            return Ok(Term::Call(field.to_owned(), method.to_owned(), text));
        }
        for (sign, means) in [
            ("==", "=="),
            ("=", "=="),
            ("!=", "!="),
            ("<=", "<="),
            (">=", ">="),
            ("<", "<"),
            (">", ">"),
        ] {
            if self.take(sign) {
                return Ok(Term::Compare(field, means, self.operand()?));
            }
        }
        // A field alone is one that has to be true.
        Ok(Term::Compare(field, "==", Operand::Flag(true)))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        Ok(match self.next()? {
            Token::Text(text) => Operand::Text(text),
            Token::Number(number) => Operand::Number(number),
            Token::Sign(_) => return Err("Expression expected".into()),
            Token::Word(word) => match word.to_lowercase().as_str() {
                "true" => Operand::Flag(true),
                "false" => Operand::Flag(false),
                "null" => Operand::Null,
                "guid" | "guid.parse" => {
                    self.expect("(")?;
                    let Token::Text(text) = self.next()? else {
                        return Err("A string is expected".into());
                    };
                    self.expect(")")?;
                    Operand::Text(text)
                }
                "datetime" | "datetime.parse" => self.moment()?,
                _ => return Err(format!("No property or field '{word}' exists")),
            },
        })
    }

    fn moment(&mut self) -> Result<Operand, String> {
        self.expect("(")?;
        let mut parts = Vec::new();
        loop {
            match self.next()? {
                Token::Text(text) => {
                    self.expect(")")?;
                    let moment = read_moment(&text).ok_or("String was not a valid DateTime")?;
                    return Ok(Operand::Moment(moment));
                }
                Token::Number(number) => parts.push(u32::try_from(number).unwrap_or(0)),
                _ => return Err("A number is expected".into()),
            }
            if self.take(")") {
                break;
            }
            self.expect(",")?;
        }
        let part = |place: usize| parts.get(place).copied().unwrap_or(0);
        NaiveDate::from_ymd_opt(i32::try_from(part(0)).unwrap_or(0), part(1), part(2))
            .and_then(|day| day.and_hms_opt(part(3), part(4), part(5)))
            .map(Operand::Moment)
            .ok_or_else(|| "No such date".into())
    }
}

fn read_moment(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim_end_matches('Z');
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok();
    time.or_else(|| {
        Some(
            text.parse::<NaiveDate>()
                .ok()?
                .and_time(chrono::NaiveTime::MIN),
        )
    })
}

impl Filter {
    pub fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader {
            tokens: tokens(text)?,
            place: 0,
        };
        let term = reader.any()?;
        match reader.peek() {
            None => Ok(Self(term)),
            Some(_) => Err("Syntax error".into()),
        }
    }

    /// Whether an entity is to be shown. A field that there cannot be is an error; fields that this
    /// one entity happens to lack are null.
    pub fn keeps(&self, value: &Fields) -> bool {
        holds(&self.0, value)
    }
}

fn holds(term: &Term, value: &Fields) -> bool {
    match term {
        Term::All(all) => all.iter().all(|one| holds(one, value)),
        Term::Any(all) => all.iter().any(|one| holds(one, value)),
        Term::Call(field, method, text) => {
            let found = at(value, field);
            let Some(found) = found.and_then(Value::as_str) else {
                return false;
            };
            let (found, text) = (found.to_lowercase(), text.to_lowercase());
            match method.as_str() {
                "Contains" => found.contains(&text),
                "StartsWith" => found.starts_with(&text),
                _ => found.ends_with(&text),
            }
        }
        Term::Compare(field, sign, operand) => {
            let found = at(value, field).unwrap_or(&Value::Null);
            let order = compare(found, operand);
            match *sign {
                "==" => order == Some(Ordering::Equal),
                "!=" => order != Some(Ordering::Equal),
                "<" => order == Some(Ordering::Less),
                ">" => order == Some(Ordering::Greater),
                "<=" => order.is_some_and(Ordering::is_le),
                _ => order.is_some_and(Ordering::is_ge),
            }
        }
    }
}

fn at<'a>(value: &'a Fields, field: &str) -> Option<&'a Value> {
    let mut parts = field.split('.');
    let first = value.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

fn moment_of(text: &str) -> Option<NaiveDateTime> {
    let inside = text.strip_prefix("/Date(")?.strip_suffix("+0000)/")?;
    let at = chrono::DateTime::from_timestamp_millis(inside.parse().ok()?)?;
    Some(at.naive_utc())
}

fn compare(found: &Value, operand: &Operand) -> Option<Ordering> {
    match operand {
        Operand::Null => found.is_null().then_some(Ordering::Equal),
        Operand::Flag(flag) => found.as_bool().map(|found| found.cmp(flag)),
        Operand::Number(number) => money::decimal(found).map(|found| found.cmp(number)),
        Operand::Moment(moment) => {
            let found = moment_of(found.as_str()?);
            found.map(|found| found.cmp(moment))
        }
        Operand::Text(text) => {
            let found = found.as_str()?;
            if let (Some(found), Some(day)) = (moment_of(found), schema::date(text)) {
                return Some(found.date().cmp(&day));
            }
            Some(found.to_lowercase().cmp(&text.to_lowercase()))
        }
    }
}

/// `Field` or `Field DESC`.
pub fn order(all: &mut [Fields], wanted: &str) {
    let (field, direction) = wanted.split_once(' ').unwrap_or((wanted, "ASC"));
    all.sort_by(|one, other| {
        let (one, other) = (at(one, field), at(other, field));
        let numbers = one
            .and_then(money::decimal)
            .zip(other.and_then(money::decimal));
        let texts = || {
            let text = |value: Option<&Value>| {
                value
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_lowercase()
            };
            text(one).cmp(&text(other))
        };
        let moments = one
            .and_then(Value::as_str)
            .and_then(moment_of)
            .zip(other.and_then(Value::as_str).and_then(moment_of));
        let order = match (moments, numbers) {
            (Some((one, other)), _) => one.cmp(&other),
            (None, Some((one, other))) => one.cmp(&other),
            _ => texts(),
        };
        match direction.trim().eq_ignore_ascii_case("DESC") {
            true => order.reverse(),
            false => order,
        }
    });
}
