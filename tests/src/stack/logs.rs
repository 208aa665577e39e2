//! The functions' logs.
//!
//! The emulator reads what a function process writes after each invocation and keeps it as
//! CloudWatch Logs would, in the group of the function.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use super::aws::Aws;
use super::{Config, Trouble, deploy};

/// Which logs to show, and whether to wait for more.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    pub function: Option<String>,
    pub follow: bool,
}

/// One function's place in its log.
#[derive(Default)]
struct Place {
    from: i64,
    /// What was already seen of the millisecond `from`.
    seen: HashSet<String>,
}

struct Reader {
    aws: Aws,
    functions: BTreeMap<String, Place>,
}

impl Reader {
    fn new(config: &Config, function: Option<&str>) -> Result<Self, Trouble> {
        let all = deploy::functions(config)?;
        if let Some(function) = function
            && !all.iter().any(|name| name == function)
        {
            return Err(Trouble::new(
                format!("There is no function {function}."),
                format!("There are: {}.", all.join(", ")),
            ));
        }
        let functions = all
            .into_iter()
            .filter(|name| function.is_none_or(|wanted| wanted == name));
        Ok(Self {
            aws: Aws::new(&config.urls().aws),
            functions: functions.map(|name| (name, Place::default())).collect(),
        })
    }

    /// The lines since the last call, oldest first.
    async fn next(&mut self) -> Result<Vec<Value>, Trouble> {
        let mut lines: Vec<(i64, Value)> = Vec::new();
        for (function, place) in &mut self.functions {
            let group = format!("/aws/lambda/crossdock-local-{function}");
            loop {
                let events = self.aws.log_events(&group, place.from).await?;
                let mut news = 0;
                for event in &events {
                    let time = event["timestamp"].as_i64().unwrap_or_default();
                    let id = format!("{}/{}", event["logStreamName"], event["eventId"]);
                    // Without event ids a line is told from another by its place and its text.
                    let id = if event["eventId"].is_string() {
                        id
                    } else {
                        format!("{id}/{}", event["message"])
                    };
                    if time > place.from {
                        place.from = time;
                        place.seen.clear();
                    }
                    if place.seen.insert(id) {
                        news += 1;
                        let message = event["message"].as_str().unwrap_or_default();
                        lines.extend(line(function, message).map(|line| (time, line)));
                    }
                }
                // A full page may have a successor.
                if news == 0 || events.len() < 10_000 {
                    break;
                }
            }
        }
        lines.sort_by_key(|(time, _)| *time);
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }
}

/// A line as an object that names its function. The frame that Lambda writes around each
/// invocation says nothing that the functions do not say themselves.
fn line(function: &str, message: &str) -> Option<Value> {
    if message.is_empty()
        || ["START RequestId:", "END RequestId:", "REPORT RequestId:"]
            .iter()
            .any(|frame| message.starts_with(frame))
    {
        return None;
    }
    let mut object = Map::new();
    object.insert("function".to_owned(), Value::from(function));
    match serde_json::from_str(message) {
        Ok(Value::Object(fields)) => object.extend(fields),
        _ => {
            object.insert("message".to_owned(), Value::from(message));
        }
    }
    Some(Value::Object(object))
}

/// What was logged so far.
pub(crate) async fn all(config: &Config, function: Option<&str>) -> Result<Vec<Value>, Trouble> {
    Reader::new(config, function)?.next().await
}

/// Prints what was logged so far, and on demand what comes.
pub(crate) async fn follow(config: &Config, options: Follow) -> Result<(), Trouble> {
    let mut reader = Reader::new(config, options.function.as_deref())?;
    loop {
        let lines = reader.next().await?;
        let mut out = std::io::stdout().lock();
        for line in lines {
            // Whoever reads may have gone, as `head` does.
            if writeln!(out, "{line}").is_err() {
                return Ok(());
            }
        }
        drop(out);
        if !options.follow {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Writes what was logged into the stack's directory, before the emulator forgets it.
pub(crate) async fn put_away(config: &Config) -> Result<(), Trouble> {
    let path = config.logs().join("functions.jsonl");
    let text: String = all(config, None)
        .await?
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&path, text)
        .map_err(|error| Trouble::io(format!("Cannot write {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_names_its_function() {
        let text = line("api_events", r#"{"level":"INFO"}"#)
            .unwrap()
            .to_string();
        assert_eq!(text, r#"{"function":"api_events","level":"INFO"}"#);
        assert_eq!(
            line("f", "panicked").unwrap().to_string(),
            r#"{"function":"f","message":"panicked"}"#
        );
        assert!(line("f", "START RequestId: 1 Version: $LATEST").is_none());
    }
}
