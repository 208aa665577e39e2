//! The few calls to the emulated AWS that the stack itself needs. They are plain HTTP: the emulator
//! reads the account and the region from the credential and does not check the signature.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::Trouble;

/// The region of every local stack.
pub const REGION: &str = "us-east-1";
/// The access key of every local stack; the emulator takes any, and its account is 000000000000.
pub const ACCESS_KEY: &str = "test";

/// The name of every local stack, as CloudFormation and `samconfig.toml` have it.
pub const STACK: &str = "crossdock-local";

/// The emulated AWS at one address.
pub(crate) struct Aws {
    endpoint: String,
}

/// What CloudFormation knows of a stack.
pub(crate) struct Deployed {
    pub(crate) status: String,
    pub(crate) outputs: BTreeMap<String, String>,
}

/// The client for calls within the stack.
#[expect(
    clippy::disallowed_methods,
    reason = "The local stack talks to itself on the loopback interface, which `net` refuses."
)]
pub(crate) fn http() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(2))
            .pool_idle_timeout(Duration::from_secs(20));
        builder.build().unwrap_or_default()
    })
}

impl Aws {
    pub(crate) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
        }
    }

    fn credential(service: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        )
    }

    /// A call to one of the services that speak JSON.
    async fn json(&self, service: &str, target: &str, body: &Value) -> Result<Value, Trouble> {
        let request = http()
            .post(&self.endpoint)
            .timeout(Duration::from_secs(30))
            .header("authorization", Self::credential(service))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(body.to_string());
        let (status, text) = self.send(target, request).await?;
        if !status.is_success() {
            return Err(Trouble::plain(format!(
                "The local AWS answered {status} to {target}: {text}"
            )));
        }
        serde_json::from_str(&text).map_err(|error| {
            Trouble::plain(format!(
                "The local AWS answered {target} with no JSON: {error}"
            ))
        })
    }

    async fn send(
        &self,
        what: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<(reqwest::StatusCode, String), Trouble> {
        let failed = |error: reqwest::Error| {
            Trouble::plain(format!("The local AWS does not answer {what}: {error}"))
        };
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        Ok((status, answer.text().await.map_err(failed)?))
    }

    /// The value of a secret.
    pub(crate) async fn secret(&self, id: &str) -> Result<Value, Trouble> {
        let answer = self
            .json(
                "secretsmanager",
                "secretsmanager.GetSecretValue",
                &json!({ "SecretId": id }),
            )
            .await?;
        let text = answer["SecretString"].as_str().unwrap_or_default();
        serde_json::from_str(text)
            .map_err(|error| Trouble::plain(format!("The secret {id} holds no JSON: {error}")))
    }

    pub(crate) async fn put_secret(&self, id: &str, value: &Value) -> Result<(), Trouble> {
        let body = json!({ "SecretId": id, "SecretString": value.to_string() });
        self.json("secretsmanager", "secretsmanager.PutSecretValue", &body)
            .await
            .map(drop)
    }

    /// How long a message that was taken from a queue stays out of sight.
    pub(crate) async fn set_visibility(&self, queue: &str, seconds: u32) -> Result<(), Trouble> {
        let body = json!({ "QueueUrl": queue, "Attributes": { "VisibilityTimeout": seconds.to_string() } });
        self.json("sqs", "AmazonSQS.SetQueueAttributes", &body)
            .await
            .map(drop)
    }

    /// Lines of a log group from a moment on, at most ten thousand.
    pub(crate) async fn log_events(&self, group: &str, from: i64) -> Result<Vec<Value>, Trouble> {
        let body = json!({ "logGroupName": group, "startTime": from });
        let mut answer = self
            .json("logs", "Logs_20140328.FilterLogEvents", &body)
            .await?;
        match answer["events"].take() {
            Value::Array(events) => Ok(events),
            _ => Ok(Vec::new()),
        }
    }

    /// The environment variables of all functions whose name starts with `prefix`. One name has one
    /// value in all of them.
    pub(crate) async fn variables(
        &self,
        prefix: &str,
    ) -> Result<BTreeMap<String, String>, Trouble> {
        let url = format!("{}/2015-03-31/functions/?MaxItems=1000", self.endpoint);
        let request = http()
            .get(url)
            .timeout(Duration::from_secs(30))
            .header("authorization", Self::credential("lambda"));
        let (status, text) = self.send("ListFunctions", request).await?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let Some(functions) = answer["Functions"].as_array() else {
            return Err(Trouble::plain(format!(
                "The local AWS answered {status} to ListFunctions: {text}"
            )));
        };
        let ours = functions.iter().filter(|function| {
            let name = function["FunctionName"].as_str();
            name.is_some_and(|name| name.starts_with(prefix))
        });
        let variables =
            ours.filter_map(|function| function["Environment"]["Variables"].as_object());
        let pairs = variables.flatten().filter_map(|(name, value)| {
            let value = value.as_str()?;
            Some((name.clone(), value.to_owned()))
        });
        Ok(pairs.collect())
    }

    /// Makes a bucket; nothing happens if it is there.
    pub(crate) async fn make_bucket(&self, name: &str) -> Result<(), Trouble> {
        let request = http()
            .put(format!("{}/{name}", self.endpoint))
            .header("authorization", Self::credential("s3"));
        let (status, text) = self.send("CreateBucket", request).await?;
        if status.is_success() || status == reqwest::StatusCode::CONFLICT {
            return Ok(());
        }
        Err(Trouble::plain(format!(
            "The local AWS answered {status} to CreateBucket: {text}"
        )))
    }

    /// A deployed stack; none if there is none of that name.
    pub(crate) async fn stack(&self, name: &str) -> Result<Option<Deployed>, Trouble> {
        let request = http()
            .post(&self.endpoint)
            .timeout(Duration::from_secs(30))
            .header("authorization", Self::credential("cloudformation"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!(
                "Action=DescribeStacks&Version=2010-05-15&StackName={name}"
            ));
        let (status, xml) = self.send("DescribeStacks", request).await?;
        if !status.is_success() {
            return if xml.contains("does not exist") {
                Ok(None)
            } else {
                Err(Trouble::plain(format!(
                    "The local AWS answered {status} to DescribeStacks: {xml}"
                )))
            };
        }
        let outputs = xml
            .split("<OutputKey>")
            .skip(1)
            .filter_map(|part| {
                Some((
                    part.split_once('<')?.0.to_owned(),
                    element(part, "OutputValue")?,
                ))
            })
            .collect();
        Ok(Some(Deployed {
            status: element(&xml, "StackStatus").unwrap_or_default(),
            outputs,
        }))
    }
}

/// The text of the first element of that name.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    // The ampersand last, so that what it escapes is not read a second time.
    Some(
        text.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use super::element;

    #[test]
    fn an_element_is_found_and_unescaped() {
        assert_eq!(
            element("<a><b>x &amp;lt; y</b></a>", "b").as_deref(),
            Some("x &lt; y")
        );
        assert_eq!(element("<a/>", "b"), None);
    }
}
